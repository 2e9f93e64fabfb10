// Holds what deploy/ promises against what weir really takes: every file parses, embedded configurations pass `weir check`, ports, paths and
// arguments agree with each other and with the command line, nothing runs as root, no image floats.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { parse, parseAllDocuments } from 'yaml';
import { startApp } from '../../src/app.ts';
import { runWeir } from '../support/run-weir.ts';

const DEPLOY = join(import.meta.dirname, '../../deploy');
const ROOT = dirname(DEPLOY);
// biome-ignore lint/suspicious/noExplicitAny: documents of other programs, looked into only here
type Document = any;

const textOf = (path: string): Promise<string> => readFile(join(DEPLOY, path), 'utf8');

async function documents(path: string): Promise<Document[]> {
  const all = parseAllDocuments(await textOf(path), { version: '1.2', uniqueKeys: true });
  return all.map((one) => {
    assert.deepEqual([...one.errors, ...one.warnings], [], path);
    return one.toJS();
  });
}

const portOf = (listen: string): number => Number(listen.slice(listen.lastIndexOf(':') + 1));

describe('deploy/', () => {
  let directory = '';
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'weir-deploy-'));
  });
  after(() => rm(directory, { recursive: true }));

  /** The effective configuration by `weir check`, with the files that it names laid below the test's directory. */
  async function effective(config: string, files: Record<string, string>, env: Record<string, string>): Promise<Document> {
    for (const [path, text] of Object.entries(files)) {
      await mkdir(dirname(join(directory, path)), { recursive: true });
      await writeFile(join(directory, path), text);
    }
    const path = join(directory, 'weir.yaml');
    await writeFile(path, config.replaceAll('{file:/', `{file:${directory}/`));
    const { code, out, err } = await runWeir(['check', '-c', path, '--print'], env);
    assert.deepEqual([code, err], [0, ''], 'neither faults nor warnings');
    return parse(out);
  }

  it('every image has a tag, and none is `latest`', async () => {
    const compose = parse(await textOf('compose.yaml'));
    const pods = [...(await documents('k8s/daemonset.yaml')), ...(await documents('k8s/sidecar.yaml'))].flatMap(
      ({ spec }) => spec?.template?.spec ?? [],
    );
    const containers = pods.flatMap((pod) => [...(pod.containers ?? []), ...(pod.initContainers ?? [])]);
    const from = [...(await textOf('Dockerfile')).matchAll(/^FROM (\S+)/gm)].map(([, image = '']) => ({ image }));
    const images = [...Object.values<Document>(compose.services), ...containers, ...from].map(({ image }) => image);
    assert.ok(images.length >= 10, String(images));
    for (const image of images) assert.match(image, /^[a-z0-9./-]+:(?!latest$)[A-Za-z0-9][\w.-]*$/);
  });

  describe('the image', () => {
    it('is built from files that exist and that its ignore file lets through', async () => {
      const copies = (await textOf('Dockerfile')).matchAll(/^COPY (?!--from)(.+) \S+$/gm);
      const copied = new Set([...copies].flatMap(([, from = '']) => from.split(' ')));
      const ignore = (await textOf('Dockerfile.dockerignore')).trim().split('\n');
      assert.equal(ignore[0], '*');
      assert.deepEqual(
        [...copied].sort(),
        ignore
          .slice(1)
          .map((line) => line.slice(1))
          .sort(),
      );
      for (const path of copied) assert.ok(existsSync(join(ROOT, path)), path);
    });

    it('runs the package as `node` on Node 24 or later, with its state where the volume is', async () => {
      const text = await textOf('Dockerfile');
      for (const [, major] of text.matchAll(/^FROM node:(\d+)/gm)) assert.ok(Number(major) >= 24);
      const last = text.slice(text.lastIndexOf('\nFROM '));
      assert.ok(last.indexOf('\nUSER node\n') > 0 && last.indexOf('\nUSER node\n') < last.indexOf('\nENTRYPOINT'));
      for (const line of [
        'WORKDIR /usr/lib/weir',
        'ENTRYPOINT ["node", "/usr/lib/weir/bin/weir.cjs"]',
        'CMD ["run", "-c", "/etc/weir/weir.yaml"]',
        'ENV XDG_STATE_HOME=/var/lib',
        'VOLUME /var/lib/weir',
        'EXPOSE 7900 7980',
      ]) {
        assert.ok(last.includes(`\n${line}\n`) || last.endsWith(`\n${line}\n`), line);
      }
      assert.match(last, /^HEALTHCHECK .* CMD \["node", "\/usr\/lib\/weir\/healthcheck\.mjs"\]$/m);
    });

    it('has a health check that says what the sidecar says, without a token', async () => {
      const config = join(directory, 'health.yaml');
      const state = join(directory, 'state');
      const head = 'api: {listen: "127.0.0.1:0", tokens: {write: w}}\nproxy: {listen: "127.0.0.1:0"}\n';
      await writeFile(config, `${head}state: {dir: ${state}}\nsources: [{id: local, kind: memory}]\n`);
      const app = await startApp({ configPath: config, logTo: join(directory, 'health.log') });
      const run = (...args: string[]): Promise<number | null> =>
        new Promise((resolve) => {
          const env = { WEIR_API: app.apiAddress };
          spawn(process.execPath, [join(DEPLOY, 'healthcheck.mjs'), ...args], { env, stdio: 'ignore' }).on('exit', resolve);
        });
      try {
        assert.deepEqual(await Promise.all([run(), run('/livez'), run('/readyz'), run('/nothing')]), [0, 0, 0, 1]);
      } finally {
        await app.close();
      }
      assert.equal(await run(), 1, 'nobody is there');
    });
  });

  describe('compose.yaml', () => {
    it('has a server for every kind of registry that has an official image, and a weir that reads all of them', async () => {
      const { services } = parse(await textOf('compose.yaml'));
      const config = await effective(await textOf('compose/weir.yaml'), {}, { WEIR_TOKEN: 'w' });
      assert.deepEqual(
        config.sources.map(({ kind }: Document) => kind),
        ['etcd', 'consul', 'nacos', 'polaris'],
      );
      for (const source of config.sources) {
        const address = [source.endpoints, source.servers, source.address].flat().find((one) => one !== undefined);
        const { hostname, port } = new URL(address.includes('://') ? address : `http://${address}`);
        const published = services[hostname]?.ports.map((text: string) => text.split(':').at(-1));
        assert.ok(published?.includes(port), `${address}: ${hostname} publishes ${published}`);
      }
      const { weir } = services;
      assert.deepEqual(
        weir.ports.map((text: string) => Number(text.split(':').at(-1))),
        [portOf(config.api.listen), portOf(config.proxy.listen)],
      );
      assert.ok(weir.volumes.includes('./compose/weir.yaml:/etc/weir/weir.yaml:ro'));
      for (const one of Object.values<Document>(services)) {
        for (const port of one.ports) assert.match(port, /^127\.0\.0\.1:/, 'published on loopback only');
      }
    });
  });

  it('the unit and the image set malloc as the test of the memory cap does (test/faults/host.test.ts)', async () => {
    const set = 'MALLOC_ARENA_MAX=1 MALLOC_TRIM_THRESHOLD_=131072';
    assert.ok((await textOf('systemd/weir.service')).includes(`\nEnvironment=${set}\n`));
    assert.ok((await textOf('Dockerfile')).includes(`\nENV ${set}\n`));
    const tested = await readFile(join(ROOT, 'test/faults/host.test.ts'), 'utf8');
    for (const pair of set.split(' ')) assert.ok(tested.includes(pair.replace('=', ": '")), pair);
  });

  describe('the systemd unit', () => {
    it('passes systemd-analyze verify', async (t) => {
      const unit = (await textOf('systemd/weir.service')).replaceAll('/usr/lib/weir/', `${ROOT}/`);
      const path = join(directory, 'weir.service');
      await writeFile(path, unit);
      const { status, error, stdout, stderr } = spawnSync('systemd-analyze', ['verify', path], { encoding: 'utf8' });
      if (error !== undefined) {
        t.skip('no systemd-analyze on this machine');
        return;
      }
      assert.deepEqual([status, stdout, stderr], [0, '', '']);
    });

    it('runs without root, and its directories are those of weir', async () => {
      const unit = await textOf('systemd/weir.service');
      const value = (key: string): string | undefined => new RegExp(`^${key}=(.*)$`, 'm').exec(unit)?.[1];
      assert.equal(value('DynamicUser'), 'yes');
      assert.equal(value('User'), undefined);
      assert.equal(value('ExecStart'), '/usr/lib/weir/bin/weir.cjs run -c /etc/weir/weir.yaml');
      assert.ok(existsSync(join(ROOT, 'bin/weir.cjs')));
      assert.equal(value('StateDirectory'), 'weir');
      assert.match(value('Environment') ?? '', /XDG_STATE_HOME=\/var\/lib( |$)/, 'weir keeps its state in $XDG_STATE_HOME/weir');
      assert.match(value('ExecReload') ?? '', / -HUP \$MAINPID$/);
      assert.equal(value('KillSignal'), 'SIGTERM');
      assert.ok(Number.parseInt(value('TimeoutStopSec') ?? '', 10) > 32, 'longer than the drain');
      assert.equal(value('RestartPreventExitStatus'), '2');
    });
  });

  const MANIFESTS = [
    {
      file: 'k8s/daemonset.yaml',
      kind: 'DaemonSet',
      secrets: { 'etc/weir/secrets/read.token': 'r', 'etc/weir/secrets/write.token': 'w', 'etc/weir/secrets/consul.token': 'c' },
      env: { NODE_IP: '10.0.0.1' },
    },
    {
      file: 'k8s/sidecar.yaml',
      kind: 'Deployment',
      secrets: {},
      env: { NODE_IP: '10.0.0.1', POD_IP: '10.1.0.1', CONSUL_TOKEN: 'c' },
    },
  ];
  for (const { file, kind, secrets, env } of MANIFESTS) {
    describe(file, () => {
      let map: Document;
      let pod: Document;
      let weir: Document;
      before(async () => {
        const all = await documents(file);
        map = all.find((one) => one.kind === 'ConfigMap');
        pod = all.find((one) => one.kind === kind).spec.template.spec;
        weir = [...pod.containers, ...(pod.initContainers ?? [])].find(({ name }) => name === 'weir');
      });

      it('its configuration passes `weir check` with the variables and files that the pod gives', async () => {
        const given = new Set(weir.env.map(({ name }: Document) => name));
        for (const name of Object.keys(env)) assert.ok(given.has(name), name);
        const config = await effective(map.data['weir.yaml'], secrets, env);
        const { dir } = config.state;
        assert.ok(
          weir.volumeMounts.some((one: Document) => one.mountPath === dir && one.readOnly !== true),
          `${dir} can be written`,
        );
      });

      it('its arguments, mounts, ports and probes are those of the configuration', async () => {
        const config = await effective(map.data['weir.yaml'], secrets, env);
        assert.deepEqual(weir.args, ['run', '-c', '/etc/weir/config/weir.yaml']);
        const mounts = new Map<string, string>(weir.volumeMounts.map((one: Document) => [one.mountPath, one.name]));
        const volume = pod.volumes.find(({ name }: Document) => name === mounts.get('/etc/weir/config'));
        assert.equal(volume.configMap.name, map.metadata.name);
        for (const { name } of weir.volumeMounts)
          assert.ok(
            pod.volumes.some((one: Document) => one.name === name),
            name,
          );
        const ports = new Map<string, number>((weir.ports ?? []).map((one: Document) => [one.name, one.containerPort]));
        for (const probe of [weir.startupProbe, weir.livenessProbe, weir.readinessProbe]) {
          const path = probe.httpGet?.path ?? probe.exec.command[2];
          assert.match(path, /^\/(livez|readyz)$/);
          if (probe.httpGet !== undefined) {
            assert.equal(ports.get(probe.httpGet.port), portOf(config.api.listen));
            assert.ok(config.api.listen.startsWith('0.0.0.0:'), 'the kubelet asks from outside of the pod');
          } else {
            assert.deepEqual(probe.exec.command.slice(0, 2), ['node', '/usr/lib/weir/healthcheck.mjs']);
            assert.equal(config.api.listen, '127.0.0.1:7900', 'what the script asks by default');
          }
        }
        if (ports.size > 0) assert.equal(ports.get('proxy'), portOf(config.proxy.listen));
        assert.equal(weir.livenessProbe.httpGet?.path ?? weir.livenessProbe.exec.command[2], '/livez');
        assert.equal(weir.readinessProbe.httpGet?.path ?? weir.readinessProbe.exec.command[2], '/readyz');
      });

      it('runs without root, rights, or a file system to write to, within limits', () => {
        const { runAsNonRoot, runAsUser, seccompProfile } = pod.securityContext;
        assert.deepEqual([runAsNonRoot, runAsUser > 0, seccompProfile.type], [true, true, 'RuntimeDefault']);
        assert.equal(pod.automountServiceAccountToken, false);
        assert.ok(pod.terminationGracePeriodSeconds > 32, 'longer than the drain');
        for (const one of [...pod.containers, ...(pod.initContainers ?? [])]) {
          const { allowPrivilegeEscalation, readOnlyRootFilesystem, capabilities } = one.securityContext;
          assert.deepEqual([allowPrivilegeEscalation, readOnlyRootFilesystem, capabilities.drop], [false, true, ['ALL']]);
          assert.ok(one.resources.requests.cpu !== undefined && one.resources.limits.memory !== undefined);
        }
      });
    });
  }
});
