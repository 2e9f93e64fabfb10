// biome-ignore-all lint/suspicious/noTemplateCurlyInString: references of the config file, not template strings
// The whole way from bytes to Settings: defaults, every fault text, warnings, secrets, the schema for editors.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { Type } from 'typebox';
import type { AdapterFactory, AdapterLoader } from '../adapter/contract.ts';
import { WeirError } from '../kernel/errors.ts';
import { DEFAULT_SERVICE_POLICY } from '../model/policy.ts';
import { configFaultText } from './config-fault.ts';
import { type Loaded, type LoadedSettings, SettingsLoader, settingsOrThrow } from './load.ts';
import { effectiveText } from './print.ts';
import type { Surroundings } from './references.ts';
import { jsonSchema } from './schema.ts';

const CANARY = 'canary-9a1e77';
const strict = { additionalProperties: false };

function factory(kind: string, config: AdapterFactory['config']): AdapterFactory {
  return {
    kind,
    config,
    create() {
      throw new Error('not created in these tests');
    },
  };
}

const FACTORIES = new Map([
  ['memory', factory('memory', Type.Object({ registry: Type.Optional(Type.String()) }, strict))],
  ['file', factory('file', Type.Object({ path: Type.String() }, strict))],
  [
    'etcd',
    factory(
      'etcd',
      Type.Object(
        {
          endpoints: Type.Array(Type.String(), { minItems: 1 }),
          layout: Type.Optional(Type.String()),
          prefix: Type.Optional(Type.String()),
        },
        strict,
      ),
    ),
  ],
]);

const adapters: AdapterLoader = { kinds: [...FACTORIES.keys()], load: async (kind) => FACTORIES.get(kind) ?? null };

function around(files: Record<string, string> = {}): Surroundings {
  return {
    env: (name) =>
      new Map([
        ['ETCD_PASSWORD', CANARY],
        ['ETCD_HOST', '10.1.1.1'],
        ['EMPTY', ''],
      ]).get(name),
    readFile: async (path) => {
      const found = files[path];
      if (found === undefined) throw new Error(`ENOENT: ${path}`);
      return Buffer.from(found);
    },
    hostName: 'host 17.example',
    stateDir: '/var/lib/weir',
  };
}

function load(text: string, files: Record<string, string> = {}): Promise<Loaded> {
  return new SettingsLoader(adapters, around(files)).load(Buffer.from(text), '/etc/weir/weir.yaml');
}

async function good(text: string, files: Record<string, string> = {}): Promise<LoadedSettings> {
  return settingsOrThrow(await load(text, files));
}

async function faults(text: string, files: Record<string, string> = {}): Promise<string[]> {
  const loaded = await load(text, files);
  return loaded.ok ? [] : loaded.faults.map((one) => configFaultText(one).replace('/etc/weir/weir.yaml:', ''));
}

describe('a file without faults', () => {
  it('is the embedded registry and the contract’s addresses when it is empty', async () => {
    for (const loaded of [await good(''), settingsOrThrow(await new SettingsLoader(adapters, around()).load(null))]) {
      const { settings } = loaded;
      assert.deepEqual(
        settings.sources.map(({ id, kind, register }) => ({ id, kind, register })),
        [{ id: 'local', kind: 'memory', register: true }],
      );
      assert.deepEqual(settings.api, {
        listen: { host: '127.0.0.1', port: 7900 },
        tokens: { read: null, write: null },
        allowedHosts: [],
      });
      assert.deepEqual(settings.proxy, { listen: { host: '127.0.0.1', port: 7980 }, workers: 0 });
      assert.deepEqual(settings.state, { dir: '/var/lib/weir', lastGoodMaxAge: 86_400_000, shared: null });
      assert.equal(settings.id, 'host-17.example');
      assert.equal(settings.accessLog, null);
      assert.equal(settings.services.policyOf('any/thing'), DEFAULT_SERVICE_POLICY);
      assert.equal(settings.services.entryOf('any/thing'), null);
      assert.deepEqual(settings.shutdown, { registrations: 'deregister' });
      assert.deepEqual(settings.migrations, { frozen: false });
      assert.deepEqual(loaded.warnings, []);
    }
  });

  it('that is the commented default of conf/ means the same as no file at all', async () => {
    const commented = await good(readFileSync(new URL('../../conf/weir.yaml', import.meta.url), 'utf8'));
    const none = await good('');
    assert.deepEqual({ ...commented.settings, services: null }, { ...none.settings, services: null });
    assert.deepEqual(commented.warnings, []);
  });

  it('may say every default that the commented file shows, and changes nothing by it', async () => {
    const text = readFileSync(new URL('../../conf/weir.yaml', import.meta.url), 'utf8');
    const from = text.indexOf('# services:');
    const example = text.slice(from, text.indexOf('# Extra local ports')).replaceAll(/^# ?/gm, '');
    const { settings } = await good(`sources: [{id: etcd-main, kind: etcd, endpoints: [a]}]\n${example}`);
    const policy = settings.services.policyOf('shop/cart');
    assert.deepEqual(policy.cluster, DEFAULT_SERVICE_POLICY.cluster);
    assert.deepEqual(policy.hold, DEFAULT_SERVICE_POLICY.hold);
    assert.deepEqual(policy.merge, DEFAULT_SERVICE_POLICY.merge);
    assert.equal(policy.healthCheck?.kind, 'http');
  });

  it('opens the store of a fleet by its own keys, below /weir/, and never shows its password', async () => {
    const loaded = await good(
      `state:
  shared: {kind: etcd, endpoints: ["http://\${ETCD_HOST}:2379"], auth: {username: u, password: "\${ETCD_PASSWORD}"}, timeout: 3s, tls: {ca: ca.pem}}`,
      { '/etc/weir/ca.pem': '-----BEGIN CERTIFICATE-----' },
    );
    assert.deepEqual(loaded.settings.state.shared, {
      kind: 'etcd',
      config: { prefix: '/weir/', endpoints: ['http://10.1.1.1:2379'] },
      options: {
        auth: { username: 'u', password: CANARY },
        tls: { ca: '/etc/weir/ca.pem' },
        timeout: 3_000,
        normalWeight: null,
      },
    });
    const shown = effectiveText(loaded.effective);
    assert.ok(!shown.includes(CANARY), shown);
    assert.match(shown, /shared:\n\s+kind: etcd\n\s+auth:\n\s+username: "?\[hidden\]/);
    assert.match(shown, /prefix: \/weir\//);
    const moved = await good('state: {shared: {kind: etcd, endpoints: [a], prefix: /fleet/}}');
    assert.deepEqual(moved.settings.state.shared?.config, { prefix: '/fleet/', endpoints: ['a'] });
    assert.equal(moved.settings.sources.length, 1, 'it is no source');
  });

  it('gives sources their options, their own keys and the safe defaults of their kind', async () => {
    const { settings } = await good(
      `sources:
  - {id: e, kind: etcd, endpoints: ["http://\${ETCD_HOST}:2379"], auth: {username: u, password: "\${ETCD_PASSWORD}"}, timeout: 3s,
     as: {namespace: shop}, network: n1, select: [a/*], normalWeight: 10, expireAfter: 1h, tls: {ca: ca.pem, serverName: x}}
  - {id: f, kind: file, path: services.yaml}
  - {id: d, kind: memory, select: onDemand}`,
      { '/etc/weir/ca.pem': '-----BEGIN CERTIFICATE-----' },
    );
    const [etcd, file, memory] = settings.sources;
    assert.deepEqual(etcd?.config, { endpoints: ['http://10.1.1.1:2379'] });
    assert.deepEqual(etcd?.options, {
      auth: { username: 'u', password: CANARY },
      tls: { ca: '/etc/weir/ca.pem', serverName: 'x' },
      timeout: 3_000,
      normalWeight: 10,
    });
    assert.deepEqual(etcd?.dial, { allowLoopback: false, allowNames: false, cidrs: [], ports: [] });
    assert.deepEqual([etcd?.asNamespace, etcd?.network, etcd?.expireAfter], ['shop', 'n1', 3_600_000]);
    assert.deepEqual(etcd?.select, { kind: 'patterns', patterns: ['a/*'] });
    assert.deepEqual(file?.config, { path: '/etc/weir/services.yaml' });
    assert.deepEqual([file?.dial.allowLoopback, file?.dial.allowNames], [true, true]);
    assert.deepEqual([memory?.dial.allowLoopback, memory?.dial.allowNames], [true, false]);
    assert.deepEqual(memory?.select, { kind: 'onDemand' });
    assert.ok(!JSON.stringify(settings.sources.map((source) => source.fingerprint)).includes(CANARY));
  });

  it('applies the first matching entry to a service, and takes names from every entry', async () => {
    const { settings } = await good(`
sources: [{id: a, kind: memory}, {id: b, kind: memory}]
services:
  - match: game/*
    names: {a: "game-{name}"}
    timeout: 3s
    retry: {attempts: 1}
    merge: {weighted: {a: 90, b: 10}}
  - match: game/lobby
    names: {b: "192002625:487373"}
  - {match: "*/db", timeout: 0, hold: false, merge: {prefer: [b, a]}, maxRequestBody: 1KiB, healthCheck: {grpc: {service: x}, interval: 1s}}`);
    const policyOf = (service: string) => settings.services.policyOf(service);
    assert.equal(policyOf('game/lobby').cluster.timeout, 3_000);
    assert.equal(policyOf('game/lobby'), policyOf('game/other'), 'one object for all services of an entry');
    assert.equal(policyOf('game/lobby').cluster.retry.attempts, 1);
    assert.equal(policyOf('game/lobby').cluster.retry.budget.percent, 20);
    assert.deepEqual(policyOf('game/x').merge, {
      kind: 'weighted',
      shares: [
        { source: 'a', share: 90 },
        { source: 'b', share: 10 },
      ],
    });
    const db = policyOf('shop/db');
    assert.deepEqual(
      [
        db.cluster.timeout,
        db.hold.enabled,
        db.merge,
        db.cluster.maxRequestBody,
        db.healthCheck?.kind,
        db.healthCheck?.grpcService,
        db.healthCheck?.interval,
      ],
      [0, false, { kind: 'prefer', order: ['b', 'a'] }, 1_024, 'grpc', 'x', 1_000],
    );
    assert.equal(settings.services.entryOf('shop/db'), '*/db');
    assert.deepEqual(
      settings.names.map(({ match, names }) => [match, [...names]]),
      [
        ['game/*', [['a', 'game-{name}']]],
        ['game/lobby', [['b', '192002625:487373']]],
      ],
    );
  });

  it('keeps the policy objects of entries that a later load does not change', async () => {
    const loader = new SettingsLoader(adapters, around());
    const text = (timeout: string) => Buffer.from(`services: [{match: a/*, timeout: ${timeout}}, {match: b/*, timeout: 7s}]`);
    const first = settingsOrThrow(await loader.load(text('5s')));
    const second = settingsOrThrow(await loader.load(text('6s')));
    assert.equal(first.settings.services.policyOf('b/x'), second.settings.services.policyOf('b/x'));
    assert.notEqual(first.settings.services.policyOf('a/x'), second.settings.services.policyOf('a/x'));
    assert.notEqual(first.fingerprint, second.fingerprint);
  });

  it('describes listeners, the access log and registrations', async () => {
    const { settings } = await good(`
accessLog: {to: "file:log/access.log"}
listeners: [{listen: "[::1]:9101", service: game/lobby}, {listen: "unix:/run/x.sock", service: a/b, direction: inbound, trustedCidrs: [10.0.0.0/8]}]
registrations:
  - {service: game/lobby, id: lobby-1, host: 10.0.0.5, port: 8000, metadata: {zone: a}, healthCheck: {http: {path: /healthz, expectedStatuses: [200, 300-399]}}}`);
    assert.deepEqual(settings.accessLog, { to: { kind: 'file', path: '/etc/weir/log/access.log' } });
    assert.deepEqual(
      settings.listeners.map(({ listen, service, direction }) => [listen, service, direction]),
      [
        [{ host: '::1', port: 9101 }, 'game/lobby', 'outbound'],
        [{ host: '', port: 0, path: '/run/x.sock' }, 'a/b', 'inbound'],
      ],
    );
    const registration = settings.registrations[0];
    assert.deepEqual(
      [registration?.service, registration?.weight, registration?.ttl, registration?.onUnhealthy, registration?.sources],
      [{ namespace: 'game', name: 'lobby' }, 100, 15_000, 'unhealthy', null],
    );
    assert.deepEqual(registration?.metadata, new Map([['zone', 'a']]));
    assert.deepEqual(registration?.healthCheck?.expectedStatuses, [
      [200, 200],
      [300, 399],
    ]);
  });

  it('takes a growing base of times with it: the longest ejection and sleep are never below the first', async () => {
    const { settings } = await good(
      'services: [{match: a/b, outlierDetection: {baseEjectionTime: 10m}, breaker: {sleepWindow: 10m}}]',
    );
    const { outlierDetection, breaker } = settings.services.policyOf('a/b').cluster;
    assert.deepEqual([outlierDetection.maxEjectionTime, breaker.maxSleepWindow], [600_000, 600_000]);
  });
});

/** [what the test says, YAML, the faults in their order]. */
const FAULTS: readonly (readonly [string, string, readonly string[]])[] = [
  [
    'an unknown key, with the key that was meant',
    'api: {listn: x}',
    ['1:7 api.listn: expected no such key, got "listn" (did you mean "listen"?)'],
  ],
  [
    'an unknown key like no other, with the known ones',
    'shutdown: {zzz: 1}',
    ['1:12 shutdown.zzz: expected no such key, got "zzz" (known keys: registrations)'],
  ],
  [
    'a duration without a unit',
    'services: [{match: a/b, timeout: 5}]',
    ['1:34 services[0].timeout: expected a duration of 1ms..24h such as 250ms, 5s, 10m, 24h, or 0 for none, got 5'],
  ],
  [
    'a duration out of range',
    'services: [{match: a/b, connectTimeout: 2m}]',
    ['1:41 services[0].connectTimeout: expected a duration of 10ms..1m such as 250ms, 5s, 10m, 24h, got "2m"'],
  ],
  [
    '0 where it means nothing',
    'services: [{match: a/b, connectTimeout: 0}]',
    ['1:41 services[0].connectTimeout: expected a duration of 10ms..1m such as 250ms, 5s, 10m, 24h, got 0'],
  ],
  [
    'a size in powers of ten',
    'services: [{match: a/b, maxRequestBody: 10MB}]',
    ['1:41 services[0].maxRequestBody: expected a size of 0..1024GiB such as 64KiB, 10MiB, got "10MB"'],
  ],
  [
    'a missing key',
    'sources: [{kind: memory}]',
    ['1:11 sources[0]: expected the key id (1..64 characters of A-Z a-z 0-9 . _ -), got nothing'],
  ],
  ['a source without a kind', 'sources: [{id: a}]', ['1:11 sources[0]: expected a kind: one of memory, file, etcd, got nothing']],
  [
    'a misspelt kind',
    'sources: [{id: a, kind: ectd}]',
    ['1:25 sources[0].kind: expected one of memory, file, etcd, got "ectd" (did you mean "etcd"?)'],
  ],
  [
    'a kind that is not built',
    'sources: [{id: a, kind: nacos, servers: [x]}]',
    ['1:25 sources[0].kind: expected one of memory, file, etcd, got "nacos" (the adapter for nacos: not built in this version)'],
  ],
  [
    'a key of another kind',
    'sources: [{id: a, kind: memory, prefix: x}]',
    [
      '1:33 sources[0].prefix: expected no such key, got "prefix" (known keys: id, kind, auth, tls, timeout, as, register, allowLoopback, allowNames, allow, network, select, normalWeight, expireAfter, registry)',
    ],
  ],
  ['a source that is no mapping', 'sources: [etcd]', ['1:11 sources[0]: expected a source: {id, kind, …}, got "etcd"']],
  [
    'workers',
    'proxy: {workers: 2}',
    ['1:18 proxy.workers: expected 0, got 2 (proxy.workers above 0 (data-plane processes): not built in this version)'],
  ],
  [
    'TCP listeners',
    'listeners: [{listen: "127.0.0.1:1", service: a/b, protocol: tcp}]',
    ['1:61 listeners[0].protocol: expected http, got "tcp" (TCP listeners: not built in this version)'],
  ],
  [
    'a shared store without its keys',
    'state: {shared: {kind: etcd}}',
    ['1:17 state.shared: expected the key endpoints, got nothing'],
  ],
  [
    'a shared store of a kind that keeps no state',
    'state: {shared: {kind: memory}}',
    ['1:24 state.shared.kind: expected one of etcd, got "memory"'],
  ],
  [
    'keys of a source at a shared store',
    'state: {shared: {kind: etcd, endpoints: [a], layout: grpc, register: true}}',
    [
      '1:46 state.shared.layout: expected no such key, got "layout" (known keys: kind, auth, tls, timeout, endpoints, prefix)',
      '1:60 state.shared.register: expected no such key, got "register" (known keys: kind, auth, tls, timeout, endpoints, prefix)',
    ],
  ],
  [
    'a shared store with half a certificate',
    'state: {shared: {kind: etcd, endpoints: [a], tls: {cert: none.pem}}}',
    [
      '1:51 state.shared.tls: expected cert and key together, got only cert',
      '1:58 state.shared.tls.cert: expected a readable file at /etc/weir/none.pem, got ENOENT: /etc/weir/none.pem',
    ],
  ],
  [
    'hedging',
    'services: [{match: a/b, retry: {hedgeOnPerTryTimeout: true}}]',
    ['1:55 services[0].retry.hedgeOnPerTryTimeout: expected false, got true (hedging: not built in this version)'],
  ],
  [
    'migrations in the file',
    'migrations: {plans: []}',
    [
      '1:14 migrations.plans: expected no such key: migrations are made through the API or `weir migrate`, not in the file, got "plans" (known keys: frozen)',
    ],
  ],
  [
    'a policy that is not built',
    'services: [{match: a/b, loadBalancer: {policy: maglev}}]',
    [
      '1:48 services[0].loadBalancer.policy: expected one of leastRequest, roundRobin, random, got "maglev" (this load-balancing policy: not built in this version)',
    ],
  ],
  [
    'slow start',
    'services: [{match: a/b, loadBalancer: {slowStart: {}}}]',
    ['1:51 services[0].loadBalancer.slowStart: expected nothing here, got an object (slow start: not built in this version)'],
  ],
  [
    'bytes of a TCP check',
    'services: [{match: a/b, healthCheck: {tcp: {send: x}}}]',
    [
      '1:51 services[0].healthCheck.tcp.send: expected nothing here, got "x" (send and expect of TCP checks: not built in this version)',
    ],
  ],
  [
    'a URL where a path stands',
    'services: [{match: a/b, healthCheck: {http: {path: "http://x/"}}}]',
    [
      '1:52 services[0].healthCheck.http.path: expected a path that starts with / and holds no space or control character, got "http://x/"',
    ],
  ],
  [
    'a path with a line break',
    'services: [{match: a/b, healthCheck: {http: {path: "/a\\r\\nb"}}}]',
    [
      '1:52 services[0].healthCheck.http.path: expected a path that starts with / and holds no space or control character, got "/a\\r\\nb"',
    ],
  ],
  [
    'two kinds of checks',
    'services: [{match: a/b, healthCheck: {http: {}, tcp: {}}}]',
    ['1:38 services[0].healthCheck: expected exactly one of http, tcp, grpc, got 2 of them'],
  ],
  [
    'no kind of check',
    'services: [{match: a/b, healthCheck: {interval: 1s}}]',
    ['1:38 services[0].healthCheck: expected exactly one of http, tcp, grpc, got none of them'],
  ],
  [
    'a status range the wrong way round',
    'services: [{match: a/b, healthCheck: {http: {expectedStatuses: [300-200]}}}]',
    ['1:65 services[0].healthCheck.http.expectedStatuses[0]: expected a range from low to high, got "300-200"'],
  ],
  [
    'merge with a wrong shape',
    'services: [{match: a/b, merge: first}]',
    ['1:32 services[0].merge: expected union, {prefer: [source, …]} or {weighted: {source: share, …}}, got "first"'],
  ],
  [
    'two sources of one id',
    'sources: [{id: a, kind: memory}, {id: a, kind: memory}]',
    ['1:39 sources[1].id: expected an id that no other source has, got "a" again'],
  ],
  [
    'an unknown source in merge',
    'sources: [{id: alpha, kind: memory}]\nservices: [{match: a/b, merge: {prefer: [alhpa]}}]',
    ['2:42 services[0].merge.prefer[0]: expected the id of a source: one of alpha, got "alhpa" (did you mean "alpha"?)'],
  ],
  [
    'an unknown source in names',
    'services: [{match: a/b, names: {zzzzzz: x}}]',
    ['1:41 services[0].names.zzzzzz: expected the id of a source: one of local, got "zzzzzz"'],
  ],
  [
    'an unknown source in a registration',
    'registrations: [{service: a/b, id: x, host: 10.0.0.1, port: 1, sources: [nope]}]',
    ['1:74 registrations[0].sources[0]: expected the id of a source: one of local, got "nope"'],
  ],
  [
    'shares of nothing',
    'services: [{match: a/b, merge: {weighted: {local: 0}}}]',
    ['1:43 services[0].merge.weighted: expected a share above 0, got only 0'],
  ],
  [
    'one address twice',
    'proxy: {listen: "127.0.0.1:7900"}',
    ['1:17 proxy.listen: expected an address that nothing else listens on, got "127.0.0.1:7900", which api.listen has'],
  ],
  [
    'one port behind the wildcard address',
    'listeners: [{listen: "0.0.0.0:7980", service: a/b}]',
    ['1:22 listeners[0].listen: expected an address that nothing else listens on, got "0.0.0.0:7980", which proxy.listen has'],
  ],
  [
    'an API that others reach, without a token',
    'api: {listen: "10.0.0.1:7900"}',
    [
      '1:15 api.listen: expected api.tokens, or a loopback address or unix socket, got an address that other hosts reach, without a token (writes always need the write token)',
    ],
  ],
  [
    'a listen address that is a name',
    'api: {listen: "example.org:80"}',
    ['1:15 api.listen: expected an IP address and port such as 127.0.0.1:7900, or unix:/path, got "example.org:80"'],
  ],
  [
    'a bad CIDR block',
    'sources: [{id: a, kind: memory, allow: {cidrs: [10.0.0.0/33]}}]',
    ['1:49 sources[0].allow.cidrs[0]: expected a CIDR block such as 10.0.0.0/8, got "10.0.0.0/33"'],
  ],
  [
    'a longest ejection below the first',
    'services: [{match: a/b, outlierDetection: {baseEjectionTime: 30s, maxEjectionTime: 10s}}]',
    ['1:84 services[0].outlierDetection.maxEjectionTime: expected at least baseEjectionTime (30000 ms), got "10s"'],
  ],
  [
    'a longest sleep below the first',
    'services: [{match: a/b, breaker: {maxSleepWindow: 1s}}]',
    ['1:51 services[0].breaker.maxSleepWindow: expected at least sleepWindow (30000 ms), got "1s"'],
  ],
  [
    'a pattern of another language',
    'services: [{match: "a/[bc]"}]',
    ['1:20 services[0].match: expected literal text and single *, no other wildcard, got "a/[bc]"'],
  ],
  [
    'a match without a namespace',
    'services: [{match: lobby}]',
    ['1:20 services[0].match: expected namespace/name, * for any run of characters, got "lobby"'],
  ],
  [
    'one native name for many services',
    'services: [{match: a/*, names: {local: x}}]',
    ['1:40 services[0].names.local: expected {name} in it, since "a/*" can match several services, got "x"'],
  ],
  [
    'one native name for two namespaces',
    'services: [{match: "*/b", names: {local: x}}]',
    ['1:42 services[0].names.local: expected {namespace} in it, since "*/b" can match several services, got "x"'],
  ],
  [
    'a placeholder that is none',
    'services: [{match: a/b, names: {local: "{foo}"}}]',
    ['1:40 services[0].names.local: expected no placeholder but {name} and {namespace}, got "{foo}"'],
  ],
  [
    'one native name for two services',
    'services: [{match: a/b, names: {local: x}}, {match: a/c, names: {local: x}}]',
    ['1:73 services[1].names.local: expected a name that no other service has in local, got "x", which services[0] has'],
  ],
  [
    'one template for two namespaces',
    'services: [{match: a/*, names: {local: "{name}"}}, {match: b/*, names: {local: "{name}"}}]',
    ['1:80 services[1].names.local: expected a name that no other service has in local, got "{name}", which services[0] has'],
  ],
  [
    'a registration twice',
    'registrations: [{service: a/b, id: x, host: 10.0.0.1, port: 1}, {service: a/b, id: x, host: 10.0.0.2, port: 1}]',
    ['1:84 registrations[1].id: expected an id that no other registration of the service has, got "a/b x" again'],
  ],
  [
    'an address that is none',
    'registrations: [{service: a/b, id: x, host: "127.1", port: 1}]',
    ['1:45 registrations[0].host: expected an IP address or host name, got "127.1"'],
  ],
  [
    'half of a key pair',
    'sources: [{id: a, kind: memory, tls: {serverName: x, key: k}}]',
    [
      '1:59 sources[0].tls.key: expected a readable file at /etc/weir/k, got ENOENT: /etc/weir/k',
      '1:38 sources[0].tls: expected cert and key together, got only key',
    ].sort(),
  ],
  [
    'a variable that is not set',
    'api: {tokens: {write: "${NOPE}"}}',
    ['1:23 api.tokens.write: expected the environment variable NOPE to be set, got no such variable'],
  ],
  [
    'a file that is not there',
    'api: {tokens: {write: "${file:t}"}}',
    ['1:23 api.tokens.write: expected a readable text file of at most 64 KiB at /etc/weir/t, got ENOENT: /etc/weir/t'],
  ],
  [
    'a reference that is none',
    'api: {tokens: {write: "${a b}"}}',
    ['1:23 api.tokens.write: expected ${NAME} of an environment variable or ${file:path}, got "${a b}"'],
  ],
  [
    'a reference where none may be',
    'services: [{match: "a/${X}"}]',
    [
      '1:20 services[0].match: expected plain text: ${…} stands only in secrets and addresses, got "a/${X}"',
      '1:20 services[0].match: expected literal text and single *, no other wildcard, got "a/${X}"',
    ].slice(0, 1),
  ],
  [
    'an empty secret',
    'api: {tokens: {write: "${EMPTY}"}}',
    ['1:23 api.tokens.write: expected text, best as ${ENV} or ${file:path}, got something else (hidden)'],
  ],
  ['a duplicate key', 'id: a\nid: b', ['2:1 (file): expected each key once, got a key that stands here twice']],
  ['a custom tag', 'id: !secret x', ['1:13 id: expected no tags, got !secret']],
  ['a wrong type at the top', '[1, 2]', ['1:1 (file): expected a mapping of keys to values, got an array of 2']],
];

describe('a faulty file is refused with the place and words for people', () => {
  for (const [what, text, expected] of FAULTS) {
    it(what, async () => {
      assert.deepEqual((await faults(text)).sort(), [...expected].sort());
    });
  }

  it('names all faults at once, in the order of the file', async () => {
    const text = 'nonsense: 1\napi: {listen: 5}\nservices:\n  - {match: a/b, timeout: x, retry: {attempts: 99}}\n';
    assert.deepEqual(
      (await faults(text)).map((fault) => fault.split(' ')[0]),
      ['1:1', '2:15', '4:27', '4:48'],
    );
  });

  it('throws CONFIG_INVALID with every fault at start', async () => {
    const loaded = await load('a: 1\nb: 2');
    assert.throws(
      () => settingsOrThrow(loaded),
      (thrown) =>
        thrown instanceof WeirError &&
        thrown.code === 'CONFIG_INVALID' &&
        /weir\.yaml:1:1 a:.*\n.*weir\.yaml:2:1 b:/.test(thrown.message),
    );
  });
});

describe('what is allowed and surely not meant', () => {
  it('is a warning: a per-try timeout that is not below the timeout, which is then ignored', async () => {
    const loaded = await good('services: [{match: a/b, timeout: 2s, retry: {perTryTimeout: 2s}}]');
    assert.deepEqual(loaded.warnings.map(configFaultText), [
      '/etc/weir/weir.yaml:1:61 services[0].retry.perTryTimeout: expected less than the timeout of 2000 ms, got 2000 ms (it is ignored)',
    ]);
    assert.equal(loaded.settings.services.policyOf('a/b').cluster.retry.perTryTimeout, 0);
  });

  it('is a warning: an entry below one that matches all it matches', async () => {
    const loaded = await good('services: [{match: "a/*"}, {match: a/b, timeout: 1s}, {match: a/c, names: {local: x}}]');
    assert.deepEqual(
      loaded.warnings.map(({ path }) => path),
      ['services[1].match'],
    );
  });
});

describe('secrets', () => {
  const TEXT =
    'api: {tokens: {read: "${ETCD_PASSWORD}"}}\nsources: [{id: e, kind: etcd, endpoints: ["http://u:pw-canary@h:1"], auth: {password: "${file:pw}"}}]';

  it('are resolved from the environment and from files beside the config, without the last line break', async () => {
    const loaded = await good(TEXT, { '/etc/weir/pw': `${CANARY}\n` });
    assert.equal(loaded.settings.api.tokens.read, CANARY);
    assert.equal(loaded.settings.sources[0]?.options.auth.password, CANARY);
    assert.deepEqual(loaded.files, ['/etc/weir/pw']);
  });

  it('never show in the effective configuration, nor does user info of an address', async () => {
    const loaded = await good(TEXT, { '/etc/weir/pw': CANARY });
    const text = effectiveText(loaded.effective);
    assert.ok(!text.includes(CANARY) && !text.includes('pw-canary'), text);
    assert.match(text, /read: "\[hidden\]"/);
    assert.match(text, /http:\/\/\[hidden\]@h:1/);
  });

  it('never show in a fault', async () => {
    const found = await faults(
      'sources: [{id: e, kind: etcd, endpoints: [x], auth: {password: "${ETCD_PASSWORD}", token: [1]}, zzz: 1}]',
    );
    assert.equal(found.length, 2);
    assert.ok(!found.join().includes(CANARY));
  });

  it('change the fingerprint of their source, and of it alone', async () => {
    const text = 'sources: [{id: a, kind: etcd, endpoints: [x], auth: {token: "${file:t}"}}, {id: b, kind: memory}]';
    const [before, after] = [await good(text, { '/etc/weir/t': 'one' }), await good(text, { '/etc/weir/t': 'two' })];
    assert.notEqual(before.fingerprint, after.fingerprint);
    assert.notEqual(before.settings.sources[0]?.fingerprint, after.settings.sources[0]?.fingerprint);
    assert.equal(before.settings.sources[1]?.fingerprint, after.settings.sources[1]?.fingerprint);
  });
});

describe('the effective configuration', () => {
  it('shows defaults where the file says nothing, and can be loaded again with the same meaning', async () => {
    const first = await good(
      'services: [{match: a/b, healthCheck: {tcp: {}}}]\nlisteners: [{listen: "127.0.0.1:1", service: a/b}]',
    );
    const text = effectiveText(first.effective);
    for (const line of ['interval: 2s', 'baseEjectionTime: 30s', 'maxRequestBody: 10MiB', 'secondRead: 15s', 'id: local']) {
      assert.ok(text.includes(line), `${line} in\n${text}`);
    }
    const second = await good(text);
    assert.deepEqual(second.settings.services.policyOf('a/b'), first.settings.services.policyOf('a/b'));
    assert.deepEqual({ ...second.settings, services: 0 }, { ...first.settings, services: 0, sources: second.settings.sources });
  });
});

describe('the JSON schema', () => {
  it('is plain JSON with a description on every key and none of our marks', () => {
    const schema = JSON.parse(JSON.stringify(jsonSchema([...FACTORIES.values()])));
    const lacking: string[] = [];
    const visit = (node: unknown, path: string): void => {
      if (typeof node !== 'object' || node === null) return;
      for (const [key, value] of Object.entries(node)) {
        assert.ok(!key.startsWith('x-'), `${path}.${key}`);
        if (key === 'properties') {
          for (const [name, inner] of Object.entries(value)) {
            const own = /anyOf\[?\.\d\.(endpoints|layout|prefix|path|registry)/.test(`${path}.${name}`);
            const nested = /merge|hold/.test(path);
            if (!own && !nested && !(typeof inner === 'object' && inner !== null && 'description' in inner))
              lacking.push(`${path}.${name}`);
          }
        }
        visit(value, key === 'properties' ? path : `${path}.${key}`);
      }
    };
    visit(schema, '');
    assert.deepEqual(
      lacking.filter((path) => !/\.anyOf\.\d\.(endpoints|layout|prefix|path|registry)$/.test(path)),
      [],
    );
    assert.match(JSON.stringify(schema), /Not built yet/);
  });
});
