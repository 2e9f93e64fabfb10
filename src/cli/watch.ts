// Owns `weir watch [pattern]`: prints changes as they come, resumes after a cut, until Ctrl-C.
import { Type } from 'typebox';
import { reconnectDelay } from '../kernel/backoff.ts';
import { systemClock } from '../kernel/clock.ts';
import { decoder, parseJson } from '../kernel/decode.ts';
import { systemRandom } from '../kernel/random.ts';
import { ApiClient, type ApiOptions, apiQuery } from './client.ts';
import { CommandFailure, type Io } from './io.ts';
import { type SseMessage, SseParser } from './sse.ts';
import { printable } from './table.ts';

const decodeChange = decoder(
  Type.Object({
    namespace: Type.String(),
    name: Type.String(),
    revision: Type.Number(),
    stale: Type.Optional(Type.Boolean()),
    instances: Type.Optional(Type.Array(Type.Object({ verdict: Type.String(), held: Type.Boolean() }))),
  }),
);
const decodeSource = decoder(Type.Object({ id: Type.String(), state: Type.String(), cause: Type.Optional(Type.String()) }));

/** Runs the command. The first connect must succeed (exit 1); a later cut is survived. */
export async function watch(io: Io, pattern: string | undefined, options: ApiOptions): Promise<void> {
  const client = new ApiClient(options, io);
  const path = `/v1/watch${apiQuery({ q: pattern })}`;
  const state: WatchState = { lastId: null, connected: false };
  for (let attempt = 1; !io.stop.aborted; attempt++) {
    try {
      await follow(client, path, state, io, options.json === true);
      attempt = 1;
    } catch (thrown) {
      if (!state.connected || !(thrown instanceof CommandFailure)) throw thrown;
    }
    if (io.stop.aborted) return;
    io.err(`the stream ended; connecting again to ${client.address}\n`);
    await systemClock.sleep(reconnectDelay(attempt, systemRandom), io.stop).catch(() => {});
  }
}

interface WatchState {
  lastId: string | null;
  connected: boolean;
}

async function follow(client: ApiClient, path: string, state: WatchState, io: Io, json: boolean): Promise<void> {
  const answer = await client.stream(path, state.lastId === null ? {} : { 'last-event-id': state.lastId });
  state.connected = true;
  const onStop = (): void => void answer.destroy();
  io.stop.addEventListener('abort', onStop, { once: true });
  const parser = new SseParser();
  try {
    for await (const chunk of answer.setEncoding('utf8')) {
      for (const message of parser.push(String(chunk))) {
        state.lastId = message.id ?? state.lastId;
        io.out(json ? jsonLine(message) : textLine(message));
      }
    }
  } catch {
    // Cut: the caller connects again, from the last id.
  } finally {
    io.stop.removeEventListener('abort', onStop);
  }
}

function jsonLine({ id, event, data }: SseMessage): string {
  const parsed = parseJson(data, { maxBytes: 67_108_864 });
  return `${JSON.stringify({ event, ...(id === null ? {} : { id }), data: parsed.ok ? parsed.value : null })}\n`;
}

/** One line a change; empty for events without news for people. */
export function textLine({ event, data }: SseMessage): string {
  const parsed = parseJson(data, { maxBytes: 67_108_864 });
  if (!parsed.ok) return '';
  if (event === 'source') {
    const source = decodeSource(parsed.value);
    if (!source.ok) return '';
    const { id, state, cause } = source.value;
    return `${printable(`source   ${id} is ${state}${cause === undefined ? '' : ` (${cause})`}`)}\n`;
  }
  const change = decodeChange(parsed.value);
  if (!change.ok) return '';
  const { namespace, name, revision, stale, instances = [] } = change.value;
  const healthy = instances.filter(({ verdict }) => verdict === 'healthy').length;
  const held = instances.filter((one) => one.held).length;
  const words =
    event === 'removed'
      ? 'is gone'
      : `${healthy}/${instances.length} healthy${held > 0 ? `, ${held} held` : ''}${stale === true ? ', stale' : ''}`;
  return `${printable(`${event.padEnd(8)} ${namespace}/${name} ${words}, revision ${revision}`)}\n`;
}
