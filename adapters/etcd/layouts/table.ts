// Owns the list of layouts by name. Called by config.ts; a new layout is one more row here and a file beside it.
import { apisixLayout, apisixSeedLayout } from './apisix.ts';
import { hertzLayout, kitexLayout } from './cloudwego.ts';
import { dubboLayout } from './dubbo.ts';
import { goMicroLayout } from './go-micro.ts';
import { goZeroLayout } from './go-zero.ts';
import { goframeLayout } from './goframe.ts';
import { grpcLayout } from './grpc.ts';
import { kratosLayout } from './kratos.ts';
import type { Layout } from './layout.ts';
import { rpcxLayout } from './rpcx.ts';
import { skydnsLayout } from './skydns.ts';
import { trpcLayout } from './trpc.ts';

export const LAYOUTS: ReadonlyMap<string, Layout> = new Map(
  [
    grpcLayout,
    goZeroLayout,
    kratosLayout,
    kitexLayout,
    hertzLayout,
    trpcLayout,
    goMicroLayout,
    skydnsLayout,
    apisixLayout,
    apisixSeedLayout,
    dubboLayout,
    rpcxLayout,
    goframeLayout,
  ].map((layout) => [layout.name, layout]),
);

/** Layouts that are known and cannot be served, with the reason that the user gets. */
export const REFUSED_LAYOUTS: ReadonlyMap<string, string> = new Map([
  [
    'registrator',
    'registrator writes to the etcd v2 store, which is not readable through the v3 API: use its consul backend, or another layout',
  ],
]);
