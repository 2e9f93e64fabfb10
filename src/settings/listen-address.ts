// Owns the text of listen addresses: `127.0.0.1:7900`, `[::1]:7900`, `unix:/run/weir.sock`. Pure.
import { addressClass, canonicalHost, isIpLiteral } from '../kernel/address.ts';
import type { ListenAddress } from '../proxy/proxy-update.ts';

/** The address, or null when the text is none. Port 0 lets the system choose. */
export function parseListen(text: string): ListenAddress | null {
  if (text.startsWith('unix:')) {
    const path = text.slice('unix:'.length);
    return path.startsWith('/') && !path.includes('\0') && Buffer.byteLength(path) < 108 ? { host: '', port: 0, path } : null;
  }
  const match = /^(.+):(\d{1,5})$/.exec(text);
  const hostText = match?.[1] ?? '';
  if (hostText.includes(':') && !hostText.startsWith('[')) return null;
  const host = hostText === 'localhost' ? '127.0.0.1' : canonicalHost(hostText);
  const port = Number(match?.[2]);
  return host === null || !isIpLiteral(host) || !(port <= 65_535) ? null : { host, port };
}

/** Only processes of this host can connect. */
export function isLocal(address: ListenAddress): boolean {
  return address.path !== undefined || addressClass(address.host) === 'loopback';
}

/** Two listeners cannot both have their address. Port 0 never collides. */
export function collide(a: ListenAddress, b: ListenAddress): boolean {
  if (a.path !== undefined || b.path !== undefined) return a.path === b.path;
  if (a.port === 0 || a.port !== b.port) return false;
  return a.host === b.host || isWildcard(a.host) || isWildcard(b.host);
}

function isWildcard(host: string): boolean {
  return host === '0.0.0.0' || host === '::';
}
