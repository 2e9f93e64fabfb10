// Owns the command line: names, arguments, help, exit codes. Bodies are imported when they run, so that `weir --help` is fast.
// Called by main.ts and by tests.
import { Command, CommanderError, Option } from 'commander';
import { messageOf, WeirError } from '../kernel/errors.ts';
import { CommandFailure, EXIT_FAILED, EXIT_OK, EXIT_USAGE, type Io } from './io.ts';

/** Runs `weir <args>` (without `node` and script); resolves with the exit code and never rejects. */
export async function runCli(args: readonly string[], io: Io, version: string): Promise<number> {
  const exit = { code: EXIT_OK };
  try {
    await program(io, version, exit).parseAsync([...args], { from: 'user' });
    return exit.code;
  } catch (thrown) {
    return failed(thrown, io);
  }
}

function failed(thrown: unknown, io: Io): number {
  // Commander has printed its own words (help, version, usage) already.
  if (thrown instanceof CommanderError) return thrown.exitCode === 0 ? EXIT_OK : EXIT_USAGE;
  if (thrown instanceof CommandFailure) {
    io.err(`${thrown.message}\n`);
    return thrown.exit;
  }
  if (thrown instanceof WeirError) io.err(`${thrown.code}: ${thrown.message}\n`);
  else io.err(`INTERNAL: ${thrown instanceof Error ? (thrown.stack ?? thrown.message) : messageOf(thrown)}\n`);
  return EXIT_FAILED;
}

function program(io: Io, version: string, exit: { code: number }): Command {
  const root = new Command('weir')
    .description('Several registries, one health-checked catalog, one local proxy.')
    .version(version)
    .exitOverride()
    .configureOutput({ writeOut: io.out, writeErr: io.err })
    .showHelpAfterError('(weir --help, or weir <command> --help)')
    .addHelpText(
      'after',
      '\nExit codes: 0 ok, 1 the request failed, 2 wrong arguments or configuration, 3 drift, 4 unsafe (migrate verify).',
    );
  sidecarCommands(root, io, exit);
  askingCommands(root, io);
  changingCommands(root, io);
  migrationCommands(root, io, exit);
  return root;
}

/** Commands that are the sidecar or look at its files. */
function sidecarCommands(root: Command, io: Io, exit: { code: number }): void {
  root
    .command('run')
    .description('the sidecar; SIGTERM drains, SIGHUP reads the configuration again')
    .option('-c, --config <file>', 'configuration; without it one embedded registry')
    .action(async (options: { config?: string }) => {
      const { run } = await import('./run.ts');
      exit.code = await run(io, options);
    });
  root
    .command('demo')
    .description('three embedded registries, six upstreams, proxy and API in a temporary folder; prints what to try')
    .option('--story <name>', 'a migration to play through: consul-nacos, cl5-polaris or etcd-polaris (docs/migration.md)')
    .option(
      '--external',
      'with --story: the registries that the environment names (npm run registries), instead of embedded ones',
    )
    .action(async ({ story, external }: { story?: string; external?: boolean }) => {
      if (story === undefined) exit.code = await (await import('./demo.ts')).demo(io);
      else exit.code = await (await import('./demo-story.ts')).demoStory(io, { story, external: external === true });
    });
  root
    .command('check')
    .description('every fault of a configuration as file:line:col path: expected … got … (exit 2)')
    .option('-c, --config <file>', 'configuration', 'weir.yaml')
    .option('--print', 'the effective configuration, secrets hidden')
    .option('--print-names', 'ask the live sources: native name → our name → names elsewhere')
    .action(async (options: { config?: string; print?: boolean; printNames?: boolean }) => {
      const { check } = await import('./check.ts');
      await check(io, options);
    });
  root
    .command('schema')
    .description('JSON Schema of the configuration')
    .option('--out <file>', 'write it there')
    .option('--check <file>', 'exit 1 when that file is another')
    .action(async (options: { out?: string; check?: string }) => {
      const { schema } = await import('./schema.ts');
      await schema(io, options);
    });
}

/** A command that asks a running sidecar. */
function asking(root: Command, nameAndArguments: string, description: string): Command {
  return root
    .command(nameAndArguments)
    .description(description)
    .option('--api <address>', 'http://host:port or unix:/path (env WEIR_API; token in WEIR_TOKEN)')
    .option('--json', 'for programs');
}

function askingCommands(root: Command, io: Io): void {
  asking(root, 'sources', 'every source with its state').action(async (options) => {
    const { sources } = await import('./sources.ts');
    await sources(io, options);
  });
  asking(root, 'services [pattern]', 'names with counts; pattern: a part of namespace/name, or with *')
    .option('--source <id>', 'only services that this source has')
    .option('--namespace <name>', 'only this namespace')
    .action(async (pattern, options) => {
      const { services } = await import('./services.ts');
      await services(io, pattern, options);
    });
  asking(root, 'instances <ns/name>', 'the merged view of one service')
    .option('--healthy', 'only healthy ones')
    .option('--zone <zone>', 'only this zone')
    .option('--source <id>', 'only what this source has')
    .action(async (service, options) => {
      const { instances } = await import('./instances.ts');
      await instances(io, service, options);
    });
  asking(root, 'explain <ns/name>', 'why each instance is in or out')
    .option('--steps', 'every step of every instance')
    .action(async (service, options) => {
      const { explain } = await import('./explain.ts');
      await explain(io, service, options);
    });
  asking(root, 'watch [pattern]', 'changes as they come, until Ctrl-C').action(async (pattern, options) => {
    const { watch } = await import('./watch.ts');
    await watch(io, pattern, options);
  });
}

function changingCommands(root: Command, io: Io): void {
  asking(root, 'register <ns/name> <host:port>', 'an instance of this host; the sidecar keeps its leases alive')
    .option('--id <id>', 'default: made of the address')
    .option('--weight <n>', '0..65535, 100 is normal')
    .option('--meta <k=v>', 'a label; may be repeated', collect)
    .option('--to <source,...>', 'sources; default: those marked register')
    .option('--ttl <duration>', '5s..60s, default 15s')
    .option('--protocol <name>', 'http, grpc, …')
    .option('--check-http <path>', 'the sidecar checks it by GET on this path')
    .option('--check-tcp', 'the sidecar checks that it accepts connections')
    .option('--check-grpc [service]', 'the sidecar asks grpc.health.v1; default: the server as a whole')
    .addOption(
      new Option('--on-unhealthy <what>', 'what a failing check does to the record; default unhealthy').choices([
        'unhealthy',
        'remove',
      ]),
    )
    .action(async (service, address, options) => {
      const { register } = await import('./register.ts');
      await register(io, service, address, options);
    });
  asking(root, 'deregister <ns/name> [host:port]', 'ends a registration')
    .option('--id <id>', 'instead of the address')
    .action(async (service, address, options) => {
      const { deregister } = await import('./deregister.ts');
      await deregister(io, service, address, options);
    });
  asking(root, 'isolate <ns/name> <host:port>', 'take an instance out of picking on this sidecar, for a while')
    .option('--for <duration>', 'at most 24h', '10m')
    .option('--end', 'end it now')
    .action(async (service, address, options) => {
      const { isolate } = await import('./isolate.ts');
      await isolate(io, service, address, options);
    });
  asking(root, 'release <ns/name>', 'release holds: what a registry dropped may go')
    .option('--source <id>', 'only holds of this source')
    .action(async (service, options) => {
      const { release } = await import('./release.ts');
      await release(io, service, options);
    });
}

/** `weir migrate …`; every body is in one module, loaded when one of them runs. */
function migrationCommands(root: Command, io: Io, exit: { code: number }): void {
  const migrate = root.command('migrate').description('move services between registries: plan, mirror, shift, cut over, finish');
  const step = (words: string, description: string) => asking(migrate, words, description);
  step('plan <id>', 'what a start would write; with -f it is ordered first')
    .option('-f, --file <file>', 'the order, as YAML or JSON: {id, from, to, services, …}')
    .action(async (id, options) => (await import('./migrate.ts')).plan(io, id, options));
  step('status [id]', 'where migrations stand').action(async (id, options) =>
    (await import('./migrate.ts')).status(io, id, options),
  );
  step('start <id>', 'mirror: copies are written; shows progress until they are')
    .option('--no-wait', 'do not wait for the first copies')
    .action(async (id, options) => (await import('./migrate.ts')).start(io, id, options));
  step('verify <id>', 'reads both sides afresh and compares; exit 3 for drift, 4 for unsafe')
    .option('--last', 'show the last result instead of reading again')
    .action(async (id, options) => {
      exit.code = await (await import('./migrate.ts')).verify(io, id, options);
    });
  step('shift <id>', 'draw this share of requests over the new side')
    .requiredOption('--weight <n>', '0..100')
    .action(async (id, options) => (await import('./migrate.ts')).shift(io, id, options));
  step('cutover <id>', 'prefer the new side').action(async (id, options) =>
    (await import('./migrate.ts')).step(io, id, 'cutover', {}, options),
  );
  step('rollback <id>', 'one step back; changes only which side is read').action(async (id, options) =>
    (await import('./migrate.ts')).step(io, id, 'rollback', {}, options),
  );
  step('finish <id>', 'read the new side only')
    .option('--keep-copies', 'copies that remain become ordinary records')
    .action(async (id, options) =>
      (await import('./migrate.ts')).step(io, id, 'finish', { keepCopies: options.keepCopies === true }, options),
    );
  step('abort <id>', 'give it up: every copy is taken away')
    .option('--force', 'also while an instance stands on the new side alone')
    .action(async (id, options) =>
      (await import('./migrate.ts')).step(io, id, 'abort', { force: options.force === true }, options),
    );
  step('collect <id>', 'take away what an ended migration left, and forget it').action(async (id, options) =>
    (await import('./migrate.ts')).step(io, id, 'collect', {}, options),
  );
  step('forget <id> <sidecar>', 'declare a sidecar of the fleet gone').action(async (id, sidecar, options) =>
    (await import('./migrate.ts')).step(io, id, 'forget', { sidecar }, options),
  );
  step('freeze', 'stop switch: no writes of any migration')
    .option('--off', 'let them write again')
    .action(async (options) => (await import('./migrate.ts')).freeze(io, options));
}

/** Values of an option that may be repeated. (A variadic option would take the arguments after it, too.) */
function collect(value: string, earlier: readonly string[] | undefined): readonly string[] {
  return [...(earlier ?? []), value];
}
