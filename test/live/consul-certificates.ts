// Certificates for tests of TLS to a real Consul, made by openssl in a folder of the test's own. Called by live tests.
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const EC = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];

/** Paths of PEM files. */
export interface Certificates {
  readonly ca: string;
  /** Of `ca`, for 127.0.0.1: server and client. */
  readonly cert: string;
  readonly key: string;
  /** Of `ca`, for the name `elsewhere.test` only. */
  readonly otherNameCert: string;
  readonly otherNameKey: string;
  /** An authority that has nothing to do with the others. */
  readonly otherCa: string;
  remove(): Promise<void>;
}

export async function makeCertificates(): Promise<Certificates> {
  const dir = await mkdtemp(join(tmpdir(), 'weir-consul-tls-'));
  const at = (name: string): string => join(dir, name);
  const openssl = (...args: string[]): Promise<unknown> => run('openssl', args, { cwd: dir });
  for (const name of ['ca', 'other-ca']) {
    await openssl('req', '-x509', ...EC, '-days', '2', '-subj', `/CN=${name}`, '-keyout', `${name}.key`, '-out', `${name}.pem`);
  }
  for (const [name, alternative] of [
    ['node', 'IP:127.0.0.1'],
    ['named', 'DNS:elsewhere.test'],
  ]) {
    const request = ['-subj', `/CN=${name}`, '-addext', `subjectAltName=${alternative}`];
    await openssl('req', ...EC, ...request, '-keyout', `${name}.key`, '-out', `${name}.csr`);
    const authority = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-copy_extensions', 'copy'];
    await openssl('x509', '-req', '-in', `${name}.csr`, ...authority, '-days', '2', '-out', `${name}.pem`);
  }
  return {
    ca: at('ca.pem'),
    cert: at('node.pem'),
    key: at('node.key'),
    otherNameCert: at('named.pem'),
    otherNameKey: at('named.key'),
    otherCa: at('other-ca.pem'),
    remove: () => rm(dir, { recursive: true, force: true }),
  };
}
