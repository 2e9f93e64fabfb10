import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type HealthCheckRequest, instanceOf, type RegistrationRequest, registrationOf } from './registration.ts';
import { Turns } from './turns.ts';

const request: RegistrationRequest = { service: { namespace: 'ns', name: 'a' }, id: 'i', host: '10.0.0.1', port: 80 };

describe('registration', () => {
  it('has the defaults of the contract', () => {
    const { weight, ttl, sources, healthCheck, onUnhealthy, metadata } = registrationOf(request);
    assert.deepEqual([weight, ttl, sources, healthCheck, onUnhealthy, metadata.size], [100, 15_000, null, null, 'unhealthy', 0]);
  });

  it('writes its host in canonical form', () => {
    assert.equal(registrationOf({ ...request, host: '::FFFF:10.0.0.9' }).host, '10.0.0.9');
    assert.equal(registrationOf({ ...request, host: 'Node-1.' }).host, 'node-1');
  });

  it('a check is of the kind that is named, TCP without one', () => {
    const kind = (healthCheck: HealthCheckRequest) => registrationOf({ ...request, healthCheck }).healthCheck;
    assert.deepEqual([kind({ http: { path: '/h' } })?.kind, kind({ http: { path: '/h' } })?.path], ['http', '/h']);
    assert.deepEqual([kind({ grpc: { service: 's' } })?.kind, kind({ grpc: { service: 's' } })?.grpcService], ['grpc', 's']);
    assert.deepEqual([kind({})?.kind, kind({ interval: 700 })?.interval], ['tcp', 700]);
  });

  it('its record carries what was asked for and nothing else', () => {
    const registration = registrationOf({ ...request, weight: 5, protocol: 'grpc', metadata: new Map([['k', 'v']]) });
    assert.deepEqual(instanceOf(registration, 'unknown'), {
      id: 'i',
      host: '10.0.0.1',
      port: 80,
      transport: 'tcp',
      weight: 5,
      health: 'unknown',
      isolated: false,
      protocol: 'grpc',
      metadata: new Map([['k', 'v']]),
    });
  });
});

describe('turns', () => {
  it('run one after the other per key, also after a failure, and keys do not wait for each other', async () => {
    const turns = new Turns();
    const told: string[] = [];
    let free = (): void => {};
    const first = turns.run('k', async () => {
      await new Promise<void>((resolve) => {
        free = resolve;
      });
      told.push('first');
      throw new Error('no');
    });
    const second = turns.run('k', async () => told.push('second'));
    await turns.run('other', async () => told.push('other'));
    free();
    await assert.rejects(first);
    await second;
    assert.deepEqual(told, ['other', 'first', 'second']);
  });
});
