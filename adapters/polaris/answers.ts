// Owns what an answer means: answer → snapshot or list, or the failure that it is (protocol notes, section 12, second table).
// Called by feed.ts, writer.ts, rights.ts and adapter.ts; must never call anything but 200000 and 400202 a fact about a service.
import { type ServiceKey, serviceId } from '../../src/model/service.ts';
import { type ServiceList, type Snapshot, SourceError } from '../../src/model/snapshot.ts';
import type { Epochs } from './epochs.ts';
import { codeError, NO_NEED_UPDATE, NOT_FOUND, OK } from './errors.ts';
import { instancesOf, listOf, type MappingOptions } from './mapping.ts';
import { type DiscoverResponse, type NativeResponse, textOf, type WriteName } from './protocol.ts';
import type { Question } from './question.ts';

export interface AnswerDeps extends MappingOptions {
  readonly epochs: Epochs;
}

/** Throws SourceError for what is no fact. */
export function snapshotOf(question: Question, answer: DiscoverResponse, server: string, deps: AnswerDeps): Snapshot {
  const key: ServiceKey = { namespace: question.namespace, name: question.name };
  const id = serviceId(key);
  const code = answer.code?.value ?? 0;
  if (code === NOT_FOUND) return { kind: 'absent', epoch: deps.epochs.of(id), sourceRevision: '' };
  if (code !== OK) throw codeError(code, textOf(answer.info) ?? '', server, question.about);
  const sourceRevision = revisionOf(answer);
  const epoch = deps.epochs.note(id, textOf(answer.service?.id) ?? textOf(answer.aliasFor?.id) ?? '', sourceRevision);
  return { kind: 'present', epoch, sourceRevision, ...instancesOf(answer, deps) };
}

/** The list and whether it says anything: an unknown namespace and one without services both answer 200000 without list and revision. */
export function namesOf(
  question: Question,
  answer: DiscoverResponse,
  server: string,
  deps: AnswerDeps,
): { readonly list: ServiceList; readonly blank: boolean } {
  const code = answer.code?.value ?? 0;
  if (code !== OK) throw codeError(code, textOf(answer.info) ?? '', server, question.about);
  const blank = revisionOf(answer) === '' && (answer.services ?? []).length === 0;
  return { list: listOf(answer, question.namespace, deps.count), blank };
}

/** The words for a namespace that shows nothing. `others`: namespaces that do have services. */
export function blankNamespace(namespace: string, server: string, others: readonly string[]): SourceError {
  const elsewhere = others.length === 0 ? 'no namespace has any' : `there are services in: ${others.slice(0, 10).join(', ')}`;
  return new SourceError(
    'refused',
    `polaris ${server}: the namespace ${namespace} is unknown there or has no service yet (${elsewhere}): check namespace (case counts)`,
  );
}

/** The revision of an answer, '' for none. */
export function revisionOf(answer: DiscoverResponse): string {
  return textOf(answer.service?.revision) ?? '';
}

/** Of an answer to a write; 0 where it says none. */
export function codeOf(answer: NativeResponse): number {
  return answer.code?.value ?? 0;
}

/** Throws SourceError unless the answer to a write is a success. */
export function accept(answer: NativeResponse, server: string, name: WriteName, { namespace, name: service }: ServiceKey): void {
  const code = codeOf(answer);
  if (code === OK || code === NO_NEED_UPDATE) return;
  throw codeError(code, textOf(answer.info) ?? '', server, `${name} of ${namespace}/${service}`);
}
