// The stories of docs/migration.md as their readers type them, on embedded registries: every block shows what the page promises, no
// request fails, no provider that is registered somewhere leaves the view. And the figure of a rollback.
import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { STORIES } from '../../src/cli/demo-stories.ts';
import { eventually } from '../support/eventually.ts';
import { assertFigure } from '../support/figure.ts';
import { lacking, plain, storyBlocks } from '../support/story-page.ts';
import { startStory } from '../support/story-run.ts';

describe('the stories of docs/migration.md', { concurrency: true }, () => {
  for (const { id, title } of STORIES) {
    it(`${title}: what is typed shows what the page promises, and no request fails`, { timeout: 180_000 }, (t) => play(t, id));
  }

  it('a rollback is felt by the next requests, within 2 s', { timeout: 120_000 }, rollback);
});

describe('the page', () => {
  it('has a story of several steps, with a rollback and a verify at the end, for each of the demo', () => {
    for (const { id } of STORIES) {
      const commands = storyBlocks(id).flatMap((block) => block.commands);
      for (const step of ['plan', 'start', 'verify', 'shift', 'rollback', 'status']) {
        assert.ok(
          commands.some((line) => line.includes(`migrate ${step} `)),
          `${id} has no ${step}`,
        );
      }
      const at = (step: string): number => commands.findLastIndex((line) => line.includes(`migrate ${step} `));
      assert.ok(at('verify') > commands.findIndex((line) => line.includes('migrate rollback ')), id);
    }
  });

  it('takes durations, counts of requests and ports for what they are, and nothing else', () => {
    assert.equal(plain('consul  live   520ms  1 3'), plain('consul live 2s 1 3'));
    assert.equal(plain('127.0.0.1:80 healthy'), plain('127.0.0.1:65000  healthy'));
    assert.notEqual(plain('10 requests, 0 failed'), plain('10 requests, 1 failed'));
    assert.equal(lacking('a 1\nb 2', ['b 2', 'a 1']), null);
    assert.equal(lacking('a 1', ['a 1', 'a 1']), 'a 1');
  });
});

async function play(t: TestContext, id: string): Promise<void> {
  const run = await startStory(id);
  try {
    for (const block of storyBlocks(id)) await run.play(block);
    const { callers } = run;
    await callers.stop();
    t.diagnostic(
      `${id}: ${callers.requests} requests of ours, ${callers.failures.length} failed, ${callers.lost.length} instances lost`,
    );
    assert.ok(callers.requests > 100, 'there was traffic');
    assert.deepEqual(callers.failures, []);
    assert.deepEqual(callers.lost, []);
  } finally {
    await run.close();
  }
}

/** Provider a has weight 0 in Nacos and not in Consul: it is picked only while Consul's word holds. */
async function rollback(t: TestContext): Promise<void> {
  const run = await startStory('consul-nacos');
  try {
    const api = `${run.variable('WEIR_API')}/v1/migrations`;
    const post = async (path: string, body: object): Promise<Response> => {
      const answer = await fetch(`${api}${path}`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(body),
      });
      await answer.text();
      return answer;
    };
    const must = async (path: string, body: object): Promise<void> =>
      assert.equal((await post(path, body)).status, 200, `${path} ${JSON.stringify(body)}`);
    await must('', { id: 'm', from: 'consul', to: 'nacos', services: ['default/hello'], gates: { soak: 0 } });
    await must('/m/start', {});
    await eventually(
      async () => assert.equal((await post('/m/shift', { weight: 100 })).status, 200, 'verify is ok'),
      60_000,
      200,
    );
    await must('/m/cutover', {});
    const providers = await (await fetch(`${run.variable('STAGE')}/providers`)).text();
    const address = /^a +(\S+)/m.exec(providers)?.[1] ?? assert.fail(providers);
    const [ip = '', port = ''] = address.split(':');
    const native = new URLSearchParams({ serviceName: 'DEFAULT_GROUP@@hello', ip, port, weight: '0', metadata: '{}' });
    // Again and again: what does not beat is dropped.
    const register = async (): Promise<void> => {
      const answer = await fetch(`http://${run.variable('NACOS')}/nacos/v1/ns/instance?${native}`, { method: 'POST' });
      assert.equal(await answer.text(), 'ok');
    };
    await register();
    let since = 0;
    let drawn = 0;
    run.callers.onUpstream = (upstream) => {
      since++;
      if (upstream === address) {
        drawn = performance.now();
        since = 0;
      }
    };
    // Of a third of the draws, 100 in a row without it do not happen by chance.
    await eventually(
      async () => {
        await register();
        assert.ok(since > 100, 'a is not drawn while Nacos has the word');
      },
      60_000,
      1_000,
    );
    const began = performance.now();
    await must('/m/rollback', {});
    await must('/m/rollback', {});
    await eventually(() => assert.ok(drawn > began, 'a is drawn over the old side again'), 30_000, 5);
    assertFigure(t, 'rollback until a request is drawn by the old side', (drawn - began) / 1_000, 2, 's');
    assert.deepEqual(run.callers.failures, []);
    assert.deepEqual(run.callers.lost, []);
  } finally {
    await run.close();
  }
}
