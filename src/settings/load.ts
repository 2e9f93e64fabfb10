// Owns the way from the bytes of weir.yaml to Settings: parse → references → schema → semantic check → compile. All faults of a step at once.
// Called at start, by `weir check` and at every reload; must never touch what is running.
import { dirname, resolve } from 'node:path';
import type { AdapterFactory, AdapterLoader } from '../adapter/contract.ts';
import { decoder, isRecord } from '../kernel/decode.ts';
import { messageOf, WeirError } from '../kernel/errors.ts';
import { check } from './check.ts';
import { compileSettings, fingerprint, withOwnDefaults } from './compile.ts';
import { type ConfigFault, configFaultText, type Path, type PathFault, pathText } from './config-fault.ts';
import { effectiveConfig } from './print.ts';
import { resolveReferences, type Surroundings } from './references.ts';
import { type ConfigFile, configSchema, fileSchema, type SourceEntry } from './schema.ts';
import { semanticFindings } from './semantic.ts';
import type { PolicyPool } from './services.ts';
import type { Settings } from './settings.ts';
import { parseYaml, type YamlFile } from './yaml.ts';

const MAX_PEM_BYTES = 1_048_576;

/** A configuration that may be run. */
export interface LoadedSettings {
  readonly ok: true;
  readonly settings: Settings;
  /** Things that are allowed and surely not meant. */
  readonly warnings: readonly ConfigFault[];
  /** Plain data of the effective configuration, secrets hidden; `effectiveText` prints it. */
  readonly effective: unknown;
  /** Faults that show only when the registries are asked, with their places in the file. */
  readonly place: (faults: readonly PathFault[]) => readonly ConfigFault[];
  /** Other files that were read (references): a change of theirs changes the settings. */
  readonly files: readonly string[];
  /** Equal for configurations that behave equally. Holds no secret. */
  readonly fingerprint: string;
}

export type Loaded =
  | LoadedSettings
  | { readonly ok: false; readonly faults: readonly ConfigFault[]; readonly files: readonly string[] };

/** Name that faults carry where no file was given. */
const NO_FILE = '(defaults)';

/** Loads configurations one after the other; keeps the policies of the last good one, so that equal ones stay the same objects. */
export class SettingsLoader {
  readonly #adapters: AdapterLoader;
  readonly #around: Surroundings;
  readonly #pool: PolicyPool = new Map();
  readonly #decode = decoder(fileSchema);

  constructor(adapters: AdapterLoader, around: Surroundings) {
    this.#adapters = adapters;
    this.#around = around;
  }

  /**
   * Loads the bytes of the file called `name` (its faults carry that name, its directory is the base of relative names).
   * Null bytes are the default configuration: one embedded registry. Never rejects for bad input.
   */
  async load(bytes: Uint8Array | null, name: string = NO_FILE): Promise<Loaded> {
    const parsed = parseYaml(bytes ?? new Uint8Array(), name);
    if (!parsed.ok) return { ok: false, faults: parsed.faults, files: [] };
    const factories = await this.#factoriesFor(parsed.file.value);
    const schema = configSchema([...factories.values()]);
    const baseDir = dirname(resolve(name));
    const resolved = await resolveReferences(schema, parsed.file.value, baseDir, this.#around);
    const files = new Set(resolved.files);
    const refuse = (faults: readonly PathFault[]): Loaded => ({
      ok: false,
      faults: placed(faults, parsed.file, name),
      files: [...files],
    });
    const unresolved = new Set(resolved.faults.map(({ path }) => pathText(path)));
    const misfits = check(schema, resolved.value).filter(({ path }) => !unresolved.has(pathText(path)));
    const faults = [...resolved.faults, ...misfits];
    if (faults.length > 0) return refuse(faults);
    const decoded = this.#decode(resolved.value);
    // The walk of check.ts speaks to people; the compiled decoder has the last word.
    if (!decoded.ok) return refuse(decoded.faults.map(({ path, expected, got }) => ({ path: [path], expected, got })));
    const found = semanticFindings(decoded.value);
    const wrong = [...(await this.#tlsFaults(decoded.value, baseDir)), ...found.faults];
    if (wrong.length > 0) return refuse(wrong);
    const { hostName, stateDir } = this.#around;
    const settings = compileSettings(decoded.value, { baseDir, hostName, stateDir, pool: this.#pool });
    return {
      ok: true,
      settings,
      warnings: placed(found.warnings, parsed.file, name),
      place: (later) => placed(later, parsed.file, name),
      effective: effectiveConfig(schema, withOwnDefaults(decoded.value, settings)),
      files: [...files],
      fingerprint: fingerprint([decoded.value, hostName, stateDir]),
    };
  }

  /** Loads only the kinds that the file uses (as a source or as the shared store), and memory for the default source: kinds load their packages lazily. */
  async #factoriesFor(value: unknown): Promise<ReadonlyMap<string, AdapterFactory>> {
    const sources = isRecord(value) && Array.isArray(value['sources']) ? value['sources'] : [];
    const kinds = new Set<string>(['memory']);
    const state = isRecord(value) ? value['state'] : null;
    const shared = isRecord(state) ? state['shared'] : null;
    for (const one of [...sources, shared]) if (isRecord(one) && typeof one['kind'] === 'string') kinds.add(one['kind']);
    const factories = new Map<string, AdapterFactory>();
    for (const kind of this.#adapters.kinds) {
      const factory = kinds.has(kind) ? await this.#adapters.load(kind) : null;
      // A kind that is known and not used needs no keys of its own in the schema: its name alone must be offered.
      factories.set(kind, factory ?? { kind, config: { type: 'object', properties: {} }, create: neverCreated });
    }
    return factories;
  }

  /** Certificates are read by the adapters, at each connection; that they can be read at all is said now. */
  async #tlsFaults(file: ConfigFile, baseDir: string): Promise<PathFault[]> {
    const faults: PathFault[] = [];
    const places = (file.sources ?? []).map(({ tls }, i): readonly [Path, SourceEntry['tls']] => [['sources', i, 'tls'], tls]);
    for (const [place, tls] of [...places, [['state', 'shared', 'tls'], file.state?.shared?.tls] as const]) {
      for (const key of ['ca', 'cert', 'key'] as const) {
        const name = tls?.[key];
        if (name === undefined) continue;
        const path: Path = [...place, key];
        try {
          const text = new TextDecoder().decode(await this.#around.readFile(resolve(baseDir, name), MAX_PEM_BYTES));
          if (!text.includes('-----BEGIN ')) faults.push({ path, expected: 'a PEM file', got: 'a file without -----BEGIN' });
        } catch (thrown) {
          faults.push({ path, expected: `a readable file at ${resolve(baseDir, name)}`, got: messageOf(thrown).slice(0, 200) });
        }
      }
    }
    return faults;
  }
}

/** The settings, or a WeirError CONFIG_INVALID whose details list the faults; for the start of the process. */
export function settingsOrThrow(loaded: Loaded): LoadedSettings {
  if (loaded.ok) return loaded;
  const texts = loaded.faults.map(configFaultText);
  throw new WeirError('CONFIG_INVALID', texts.join('\n'), { details: { faults: texts } });
}

function neverCreated(): never {
  throw new RangeError('a kind that no source uses was created');
}

function placed(faults: readonly PathFault[], file: YamlFile, name: string): ConfigFault[] {
  return faults
    .map((one) => ({
      file: name,
      ...file.position(one.path, one.onKey === true),
      path: pathText(one.path),
      expected: one.expected,
      got: one.got,
      ...(one.hint === undefined ? {} : { hint: one.hint }),
    }))
    .sort((a, b) => a.line - b.line || a.col - b.col);
}
