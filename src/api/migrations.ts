// Owns /v1/migrations: orders, plans, steps, verify, the stop switch. What is allowed when is the port's matter (migrate/phases.ts).
// Called by server.ts; must never write to a registry.
import { Type } from 'typebox';
import type { MigrationStatus } from '../migrate/known.ts';
import type { Step } from '../migrate/phases.ts';
import { decodeSpec, SpecBody, specJson } from '../migrate/spec.ts';
import type { ApiContext, App } from './context.ts';
import { badRequest, bodyDecoder, pathText } from './decode-request.ts';
import { answers } from './schemas.ts';

const STRICT = { additionalProperties: false } as const;
const Params = Type.Object({ id: Type.String({ description: 'Id of the migration.' }) });
const EmptyBody = Type.Object({}, STRICT);
const ShiftBody = Type.Object(
  { weight: Type.Integer({ minimum: 0, maximum: 100, description: 'Per cent of requests drawn over the records of `to`.' }) },
  STRICT,
);
const FinishBody = Type.Object(
  { keepCopies: Type.Optional(Type.Boolean({ description: 'Copies that remain become ordinary records.' })) },
  STRICT,
);
const AbortBody = Type.Object(
  { force: Type.Optional(Type.Boolean({ description: 'Also while an instance stands in `to` alone.' })) },
  STRICT,
);
const ForgetBody = Type.Object({ sidecar: Type.String({ description: 'Name of the sidecar that is gone.' }) }, STRICT);
const FreezeBody = Type.Object({ frozen: Type.Boolean({ description: 'true: no writes of any migration.' }) }, STRICT);

const Migration = Type.Object(
  {
    id: Type.String(),
    from: Type.String(),
    to: Type.String(),
    phase: Type.String({
      description: 'plan, mirror, shift, cutover, finished, aborting, aborted; broken: its journal cannot be read.',
    }),
    weight: Type.Integer(),
    counts: Type.Object({
      services: Type.Integer(),
      copies: Type.Record(Type.String(), Type.Record(Type.String(), Type.Integer()), {
        description: 'By source, then by state.',
      }),
    }),
  },
  { additionalProperties: true },
);
const Migrations = Type.Object({ migrations: Type.Array(Migration) });
const Anything = Type.Object({}, { additionalProperties: true });

/** Registers every call. */
export function routeMigrations(app: App, { ports, audit }: ApiContext): void {
  const { migrations } = ports;
  const id = (params: unknown): string => pathText(params, 'id');
  const path = (step: string): string => `/v1/migrations/:id/${step}`;

  app.get('/v1/migrations', { schema: { summary: 'Every migration', response: answers(Migrations) } }, async () => ({
    migrations: migrations.list().map(migrationAnswer),
  }));
  app.post(
    '/v1/migrations',
    { schema: { summary: 'Order a migration: a plan, nothing is written', body: SpecBody, response: answers(Migration) } },
    async (request) => {
      const decoded = decodeSpec(request.body ?? {});
      if (!decoded.ok) throw badRequest(decoded.faults.map((fault) => ({ ...fault, path: `body.${fault.path}` })));
      return migrationAnswer(await migrations.create(decoded.spec));
    },
  );
  app.get(
    '/v1/migrations/:id',
    { schema: { summary: 'One migration', params: Params, response: answers(Migration) } },
    async (request) => migrationAnswer(migrations.status(id(request.params))),
  );
  app.get(
    path('plan'),
    { schema: { summary: 'What a start would write', params: Params, response: answers(Anything) } },
    async (request) => migrations.plan(id(request.params)),
  );
  app.get(
    path('verify'),
    { schema: { summary: 'The last verify', params: Params, response: answers(Anything) } },
    async (request) => ({
      result: migrations.lastVerify(id(request.params)),
    }),
  );
  const empty = bodyDecoder(EmptyBody);
  app.post(
    path('verify'),
    { schema: { summary: 'Read both sides afresh and compare', params: Params, body: EmptyBody, response: answers(Anything) } },
    async (request) => {
      empty(request.body);
      return { result: await migrations.verify(id(request.params)) };
    },
  );

  const step = async (params: unknown, what: Step): Promise<object> => migrationAnswer(await migrations.step(id(params), what));
  const stepSchema = (summary: string, body: typeof EmptyBody | typeof ShiftBody | typeof FinishBody | typeof AbortBody) => ({
    schema: { summary, params: Params, body, response: answers(Migration) },
  });
  for (const kind of ['start', 'cutover', 'rollback'] as const) {
    app.post(path(kind), stepSchema(SUMMARIES[kind], EmptyBody), async (request) => {
      empty(request.body);
      return step(request.params, { kind });
    });
  }
  const shift = bodyDecoder(ShiftBody);
  app.post(path('shift'), stepSchema('Draw this share of requests over `to`', ShiftBody), async (request) =>
    step(request.params, { kind: 'shift', weight: shift(request.body).weight }),
  );
  const finish = bodyDecoder(FinishBody);
  app.post(path('finish'), stepSchema('Read `to` only, take the return copies away', FinishBody), async (request) =>
    step(request.params, { kind: 'finish', keepCopies: finish(request.body).keepCopies ?? false }),
  );
  const abort = bodyDecoder(AbortBody);
  app.post(path('abort'), stepSchema('Give it up: every copy is taken away', AbortBody), async (request) =>
    step(request.params, { kind: 'abort', force: abort(request.body).force ?? false }),
  );
  app.post(path('collect'), stepSchema('Take away what an ended migration left, and forget it', EmptyBody), async (request) => {
    empty(request.body);
    return migrationAnswer(await migrations.collect(id(request.params)));
  });
  const forget = bodyDecoder(ForgetBody);
  app.post(
    path('forget'),
    { schema: { summary: 'Declare a sidecar gone', params: Params, body: ForgetBody, response: answers(Migration) } },
    async (request) => migrationAnswer(await migrations.forget(id(request.params), forget(request.body).sidecar)),
  );
  const freeze = bodyDecoder(FreezeBody);
  app.post(
    '/v1/migrations/freeze',
    { schema: { summary: 'Stop switch: no writes of any migration', body: FreezeBody, response: answers(Migrations) } },
    async (request) => {
      const { frozen } = freeze(request.body);
      const all = await migrations.freeze(frozen);
      audit.write({ what: frozen ? 'freeze' : 'thaw', result: 'ok' });
      return { migrations: all.map(migrationAnswer) };
    },
  );
}

const SUMMARIES = {
  start: 'Mirror: copies are written from now on',
  cutover: 'Prefer `to`',
  rollback: 'One step back; changes only which side is read',
} as const;

/** A migration as the API shows it. */
export function migrationAnswer({ id, from, to, doc, broken, worker, behind, sidecars, sides, shared }: MigrationStatus): object {
  const counts = { services: worker?.services ?? 0, copies: worker?.copies ?? {} };
  if (doc === null) return { id, from, to, phase: 'broken', weight: 0, counts, error: broken };
  return {
    id,
    from,
    to,
    phase: doc.phase,
    weight: doc.weight,
    counts,
    since: doc.since,
    createdAt: doc.createdAt,
    startedAt: doc.startedAt,
    frozen: doc.frozen,
    ...(doc.lastVerify === null ? {} : { lastVerify: doc.lastVerify, okSince: doc.okSince }),
    ...(doc.stopped === null ? {} : { stopped: doc.stopped }),
    ...(doc.keptCopies ? { keptCopies: true } : {}),
    ...(worker === null ? {} : { writer: worker }),
    ...(sides === null ? {} : { sides }),
    fleet: { shared, sidecars, behind, forgotten: doc.forgotten },
    spec: specJson(doc.spec),
  };
}
