import { World } from './world.ts';
const t0 = performance.now();
const w = new World({ from: 'embedded', to: 'keys' });
for (const p of [1,2,3]) { w.from.provide('default/a', `10.0.0.1:${p}`); w.live('default/a', `10.0.0.1:${p}`); }
const s = await w.sidecar();
await w.run(2000);
console.log(s.catalog.sourceIds, [...s.catalog.servicesOf('old')], performance.now() - t0);
console.log((await s.migrations.create(w.spec())).doc?.phase);
await s.migrations.step('m1', { kind: 'start' });
await w.run(60_000);
console.log(w.to.records().map(r=>[r.key,r.address,r.metadata.size]), s.migrations.status('m1').worker, s.migrations.status('m1').doc?.lastVerify);
const t1 = performance.now();
await w.run(600_000);
console.log('10 fake min', performance.now() - t1, w.audit.length);
console.log(await s.migrations.step('m1', { kind: 'shift', weight: 50 }).then(x=>x.doc?.phase, e=>e.message));
await w.run(1000);
console.log(JSON.stringify(w.views.at(-1)));
process.exit(0)
