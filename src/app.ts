// The only composition root: builds every part of a sidecar, wires them, and tears them down in order. Reads as the boot story:
// settings → telemetry → last good → catalog ⇄ health → data plane → sources → registrations → API.
// Called by cli (run, demo) and by tests. Nobody else knows all the parts.
import { join } from 'node:path';
import type { AdapterLoader } from './adapter/contract.ts';
import { apiPorts } from './app/api-ports.ts';
import { adapterLoader } from './app/loader.ts';
import { LateOverlay, MigrationUser, openMigrations } from './app/migrations.ts';
import { isAlive, nofileLimit, ownLife, ownUid, PressureMeter, surroundings } from './app/process-facts.ts';
import { MAIN_LISTENER, ProxyUser, proxyUpdate } from './app/proxy-user.ts';
import { readinessWaits } from './app/readiness.ts';
import { RegistrationHealth } from './app/registration-health.ts';
import { RegistrationUser } from './app/registration-user.ts';
import { RunningSources } from './app/sources.ts';
import { Catalog } from './catalog/catalog.ts';
import { LastGoodFile } from './catalog/last-good.ts';
import { loadLastGood } from './catalog/last-good-load.ts';
import { Overrides } from './health/overrides.ts';
import { GrpcProbe } from './health/probe-grpc.ts';
import { HttpProbe } from './health/probe-http.ts';
import { TcpProbe } from './health/probe-tcp.ts';
import { Prober } from './health/prober.ts';
import { Publish } from './health/publish.ts';
import { addressClass, hostPort, isIpLiteral, splitHostPort } from './kernel/address.ts';
import { type Clock, systemClock } from './kernel/clock.ts';
import type { OwnListener } from './kernel/dial.ts';
import { lockDirectory } from './kernel/durable-file.ts';
import { messageOf, WeirError } from './kernel/errors.ts';
import { createLog, type Log, type LogLevel } from './kernel/log.ts';
import { type Random, systemRandom } from './kernel/random.ts';
import { TimerWheel } from './kernel/timer-wheel.ts';
import { serviceId } from './model/service.ts';
import { DataPlane } from './proxy/data-plane.ts';
import type { ListenAddress } from './proxy/proxy-update.ts';
import { Registrations } from './registration/registrations.ts';
import { FileSource, readConfigFile } from './settings/file-source.ts';
import { SettingsLoader, settingsOrThrow } from './settings/load.ts';
import { type ReloadResult, SettingsStore } from './settings/store.ts';
import { Audit } from './telemetry/audit.ts';
import { Events } from './telemetry/events.ts';
import { Metrics } from './telemetry/metrics.ts';

/** contract.md: after this long an unknown service is 404 and `/readyz` waits for no source, ms. */
const FIRST_ANSWER_MS = 10_000;
/** Descriptors that the data plane leaves to the API, registries and files. */
const ADMIN_RESERVE = 128;

export interface AppOptions {
  /** Without one the default configuration runs: one embedded registry. */
  readonly configPath?: string;
  readonly logLevel?: LogLevel;
  /** File descriptor or path of the log; default stdout. */
  readonly logTo?: number | string;
  /** Kinds of sources; default: those of adapters/index.ts. */
  readonly loader?: AdapterLoader;
}

/** A running sidecar. */
export interface RunningApp {
  /** `http://host:port` or `unix:path`. */
  readonly apiAddress: string;
  /** `host:port` of the main proxy port, or `unix:path`. */
  readonly proxyAddress: string;
  readonly metrics: Metrics;
  /** Reads the configuration file again; never rejects for a bad one. */
  reload(): Promise<ReloadResult>;
  /** Deregisters what is ours, lame duck, finishes what is in flight, ends. A second call stops hard. */
  drain(): Promise<void>;
  /** Ends everything now; leases are left as `shutdown.registrations` says. */
  close(): Promise<void>;
}

/** Starts a sidecar. Throws WeirError CONFIG_INVALID (all faults in its message), STATE_LOCKED, LISTEN_FAILED, API_INSECURE. */
export async function startApp(options: AppOptions = {}): Promise<RunningApp> {
  const clock = systemClock;
  const random = systemRandom;
  const metrics = new Metrics();
  const { log, flush, flushSoon } = createLog({
    level: options.logLevel ?? 'info',
    sync: false,
    ...(options.logTo === undefined ? {} : { dest: options.logTo }),
    onDrop: () => metrics.counter('weir_log_dropped_total').inc(),
  });
  const ends: (() => void | Promise<void>)[] = [flush];
  try {
    return await start({ options, clock, random, metrics, log, flushSoon, ends });
  } catch (thrown) {
    await runEnds(ends, log);
    throw thrown;
  }
}

interface Base {
  readonly options: AppOptions;
  readonly clock: Clock;
  readonly random: Random;
  readonly metrics: Metrics;
  readonly log: Log;
  readonly flushSoon: () => void;
  /** What must be undone, in the order of building; run backwards. */
  readonly ends: (() => void | Promise<void>)[];
}

async function start(base: Base): Promise<RunningApp> {
  const { options, clock, random, metrics, log, flushSoon, ends } = base;
  const startedAt = clock.now();
  const events = new Events(clock, log, metrics);
  const audit = new Audit(log, flushSoon);

  const loader = options.loader ?? adapterLoader();
  const settingsLoader = new SettingsLoader(loader, surroundings());
  const { configPath } = options;
  /** Other files of the newest load: their change is a change of the configuration. */
  let files: readonly string[] = [];
  const load = async (bytes?: Uint8Array) => {
    const found = bytes ?? (configPath === undefined ? null : await readConfig(configPath));
    const loaded = await settingsLoader.load(found, configPath);
    files = loaded.files;
    return loaded;
  };
  const initial = settingsOrThrow(await load());
  const store = new SettingsStore({ clock, log, events, metrics }, initial, configPath ?? null);
  const { settings } = initial;

  const uid = ownUid();
  const stateDir = settings.state.dir;
  const lock = await lockDirectory(stateDir, ownLife(), isAlive);
  ends.push(() => lock.release());
  const { lastGoodMaxAge: maxAge } = settings.state;
  const lastGood = await loadLastGood({ directory: stateDir, wallNow: clock.wallNow(), maxAge, uid, metrics, events });

  const probes = { http: new HttpProbe(), tcp: new TcpProbe(), grpc: new GrpcProbe() };
  const prober = new Prober({ clock, random, events, metrics, probes });
  ends.push(() => prober.close());
  const { evidence } = prober;
  const overlay = new LateOverlay();
  const catalog = new Catalog({ clock, log, events, metrics, evidence, overlay, lastIndex: lastGood.index });
  ends.push(() => catalog.close());

  // Own listeners are asked for at each judgement: ports may be given by the system, and change on reload.
  let apiListener: OwnListener | null = null;
  const own = (): readonly OwnListener[] => [...dataPlane.own, ...(apiListener === null ? [] : [apiListener])];
  const nofile = nofileLimit();
  const meter = new PressureMeter(nofile);
  ends.push(() => meter.close());
  metrics.onCollect(() => metrics.gauge('weir_event_loop_delay_p99_ms').set(meter.takeWorst()));
  const wheel = new TimerWheel(clock);
  ends.push(() => wheel.close());
  const dataPlane = new DataPlane({
    clock,
    random,
    wheel,
    metrics,
    log,
    interest: { firstUse: (service) => publish.firstUse(service) },
    sampler: () => meter.sample(),
    maxConnections: Math.max(64, Math.floor(nofile / 2) - ADMIN_RESERVE),
    own: () => (apiListener === null ? [] : [apiListener]),
  });
  ends.push(() => dataPlane.close());

  const sources = new RunningSources({
    loader,
    catalog,
    clock,
    random,
    log,
    events,
    metrics,
    audit,
    own,
    leaveSource: (sourceId) => registrations.leaveSource(sourceId),
    changed: () => registrationUser.sourcesChanged(),
  });
  ends.push(() => sources.close());
  const overrides = new Overrides({ clock, log, path: join(stateDir, 'overrides.json'), uid });
  const notReady = (): boolean => clock.now() - startedAt < FIRST_ANSWER_MS && !catalog.everySourceAnswered();
  const publish = new Publish(
    {
      clock,
      catalog,
      prober,
      overrides,
      dialOf: (sourceId) => sources.dialOf(sourceId),
      send: (message) => dataPlane.apply(message),
      activeServices: (withinMs) => dataPlane.activeServices(withinMs),
      notReady,
      use: (service) => sources.use(service),
    },
    settings,
  );
  ends.push(() => publish.close());
  const registrations = await Registrations.open({
    clock,
    random,
    log,
    sources: () => sources.registrationSources(),
    nativeKey: (sourceId, service) => catalog.toWrite(sourceId, serviceId(service)),
    audit: (line) => audit.write(line),
    metrics,
    onLost: (details) => events.emit('registration_lost', details),
    journalPath: join(stateDir, 'registrations.json'),
    uid,
  });
  const registrationUser = new RegistrationUser(registrations);
  const registrationHealth = new RegistrationHealth(registrations, prober);
  ends.push(() => registrationHealth.close());
  metrics.onCollect(() => {
    for (const [state, count] of registrations.counts()) metrics.gauge('weir_registrations', state).set(count);
  });

  const { migrations, close: closeMigrations } = await openMigrations({
    settings,
    current: () => store.current,
    loader,
    clock,
    random,
    log,
    events,
    metrics,
    audit,
    uid,
    catalog,
    sources,
    dataPlane,
    probes,
  });
  ends.push(closeMigrations);
  overlay.set(migrations);

  // From here on parts run: what is known from disk first, then the proxy, the API, the registries.
  const prepared = await sources.prepare(settings);
  prepared.commit();
  // No source has begun, so nothing from disk ever covers an answer.
  catalog.restore(lastGood.words);
  const lastGoodFile = new LastGoodFile({ directory: stateDir, catalog, clock, log, metrics }, lastGood);
  ends.push(() => lastGoodFile.close());
  await overrides.load();
  publish.start();
  const proxyUser = new ProxyUser(dataPlane);
  await dataPlane.apply(proxyUpdate(settings));
  let listening = true;
  const waiting = (): readonly string[] =>
    readinessWaits({
      listening,
      unanswered: catalog.sourceIds.filter((id) => !catalog.hasFirstAnswer(id)),
      restored: lastGood.services > 0,
      timeUp: clock.now() - startedAt >= FIRST_ANSWER_MS,
    });
  const ports = apiPorts({
    catalog,
    publish,
    overrides,
    sources,
    registrations,
    migrations,
    dataPlane,
    store,
    notReady,
    waiting,
  });
  // The packages of the API and of the registries' clients take a third of a start to load: the proxy serves before that.
  const { createApi } = await import('./api/server.ts');
  const api = await createApi(
    settings.api,
    { clock, log, metrics, events, audit, maxConnections: Math.max(64, Math.floor(nofile / 4)) },
    ports,
  );
  ends.push(() => api.close());
  const apiAddress = await api.listen();
  apiListener = ownListenerOf(apiAddress);
  sources.begin();
  migrations.start();
  await registrationUser.apply(settings);
  for (const user of [sources, publish, registrationUser, new MigrationUser(migrations), proxyUser]) store.addUser(user);

  const reload = async (): Promise<ReloadResult> => store.reload(await load());
  if (configPath !== undefined) {
    const file = new FileSource({
      path: configPath,
      clock,
      log,
      others: () => files,
      onChange: async (bytes) => void (await store.reload(await load(bytes))),
    });
    await file.start();
    ends.push(() => file.close());
  }
  log.info({ api: apiAddress, sources: settings.sources.map(({ id }) => id), stateDir }, 'weir is running');

  let closing: Promise<void> | null = null;
  const close = (): Promise<void> => {
    listening = false;
    closing ??= (async () => {
      await sources.stopWatching();
      await registrations.shutdown('keep');
      await runEnds(ends, log);
    })();
    return closing;
  };
  let draining = false;
  return {
    apiAddress,
    proxyAddress: proxyAddressOf(dataPlane, settings.proxy.listen),
    metrics,
    reload,
    close,
    async drain() {
      if (draining) {
        // The second signal: the drain under way ends at once.
        void dataPlane.drain();
        return;
      }
      draining = true;
      listening = false;
      // Nobody should still be sent here: what is ours leaves the registries as the lame duck starts.
      const left =
        store.current.shutdown.registrations === 'deregister' ? registrations.shutdown('deregister') : Promise.resolve();
      await Promise.all([dataPlane.drain(), left]);
      await close();
    },
  };
}

async function readConfig(path: string): Promise<Uint8Array> {
  try {
    return await readConfigFile(path);
  } catch (thrown) {
    throw new WeirError('CONFIG_UNREADABLE', `${path}: ${messageOf(thrown)}`, { cause: thrown });
  }
}

/** The API's own address as the outbound policy knows it; a unix socket is no address. */
function ownListenerOf(apiAddress: string): OwnListener | null {
  if (!apiAddress.startsWith('http://')) return null;
  const at = splitHostPort(apiAddress.slice('http://'.length));
  if (at === null) return null;
  return { host: isIpLiteral(at.host) && addressClass(at.host) === 'unspecified' ? '*' : at.host, port: at.port };
}

function proxyAddressOf(dataPlane: DataPlane, listen: ListenAddress): string {
  if (listen.path !== undefined) return `unix:${listen.path}`;
  const { host, port } = dataPlane.address(MAIN_LISTENER) ?? listen;
  return hostPort(host, port);
}

/** Runs every end, last built first; a failing one is said and does not stop the others. */
async function runEnds(ends: (() => void | Promise<void>)[], log: Log): Promise<void> {
  for (let end = ends.pop(); end !== undefined; end = ends.pop()) {
    try {
      await end();
    } catch (thrown) {
      log.error({ error: messageOf(thrown) }, 'a part did not close cleanly');
    }
  }
}
