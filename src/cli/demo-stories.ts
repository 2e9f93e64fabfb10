// Owns the three stories of docs/migration.md as data: which registries, which configuration, who is registered where at the start, and
// what to type first. Read by demo-story.ts; must never start anything.

/** One provider and the registries that it stands in when the story begins. */
export interface StoryProvider {
  readonly name: string;
  readonly registered: readonly string[];
}

export interface Story {
  readonly id: string;
  readonly title: string;
  /** In conf/; `${NAME}` stands for an address. */
  readonly config: string;
  /** Embedded registries, by kind. */
  readonly registries: readonly string[];
  /** Variables that name real registries instead; what `npm run registries -- up` leaves. */
  readonly needs: readonly string[];
  readonly providers: readonly StoryProvider[];
  /** Polaris tells a namespace without services from one that does not exist by nothing: another service stands there already. */
  readonly neighbour?: { readonly namespace: string; readonly service: string };
  /** What to type, in order. */
  readonly next: readonly string[];
}

const WEIR = 'npm run -s weir --';

function next(id: string, order: string, more: readonly string[]): readonly string[] {
  return [`${WEIR} sources`, `${WEIR} migrate plan ${id} -f conf/${order}`, `${WEIR} migrate start ${id}`, ...more];
}

export const STORIES: readonly Story[] = [
  {
    id: 'consul-nacos',
    title: 'Consul → Nacos: three providers move one by one',
    config: 'migrate-consul-nacos.yaml',
    registries: ['consul', 'nacos'],
    needs: ['CONSUL', 'NACOS'],
    providers: [
      { name: 'a', registered: ['consul'] },
      { name: 'b', registered: ['consul'] },
      { name: 'c', registered: ['consul'] },
    ],
    next: next('to-nacos', 'migrate-consul-nacos-order.yaml', [
      `${WEIR} migrate verify to-nacos`,
      `${WEIR} migrate shift to-nacos --weight 10`,
    ]),
  },
  {
    id: 'cl5-polaris',
    title: 'CL5 → Polaris: the copies stay, and the SID becomes an alias',
    config: 'migrate-cl5-polaris.yaml',
    registries: ['cl5', 'polaris'],
    needs: ['POLARIS_L5', 'POLARIS', 'POLARIS_HTTP', 'POLARIS_TOKEN'],
    providers: [
      { name: 'a', registered: ['cl5'] },
      { name: 'b', registered: ['cl5'] },
      { name: 'c', registered: ['cl5'] },
    ],
    neighbour: { namespace: 'Production', service: 'neighbour' },
    next: next('off-cl5', 'migrate-cl5-polaris-order.yaml', [`${WEIR} migrate verify off-cl5`]),
  },
  {
    id: 'etcd-polaris',
    title: 'etcd ⇄ Polaris: both stay, each shows what the other has',
    config: 'migrate-etcd-polaris.yaml',
    registries: ['etcd', 'polaris'],
    needs: ['ETCD', 'POLARIS', 'POLARIS_HTTP', 'POLARIS_TOKEN'],
    providers: [
      { name: 'a', registered: ['etcd'] },
      { name: 'b', registered: ['etcd'] },
      { name: 'c', registered: ['polaris'] },
      { name: 'd', registered: [] },
    ],
    next: next('side-by-side', 'migrate-etcd-polaris-order.yaml', [`${WEIR} migrate verify side-by-side`]),
  },
];
