// Table tests of the five ways to name a service.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { normalPath, type Route, type RouteInput, Router, serviceOfHost } from './route.ts';

function ask(input: Partial<RouteInput>, dedicated: string | null = null): string {
  const route: Route = { service: '', path: '' };
  const answer = new Router().route({ host: 'x', path: '/', absolute: false, serviceHeader: null, ...input }, dedicated, route);
  return answer === null ? `${route.service} ${route.path}` : `${answer.status} ${answer.code}`;
}

const WAYS: readonly (readonly [string, Partial<RouteInput>, string])[] = [
  ['header names the service', { serviceHeader: 'demo/hello', path: '/a?b' }, 'demo/hello /a?b'],
  ['header wins over Host and path', { serviceHeader: 'a/b', host: 'x.y.weir', path: '/svc/c/d/e' }, 'a/b /svc/c/d/e'],
  ['a name in the header may hold a slash', { serviceHeader: 'ns/a/b' }, 'ns/a/b /'],
  ['header in UTF-8', { serviceHeader: Buffer.from('ns/é', 'utf8').toString('latin1') }, 'ns/é /'],
  ['header that is no UTF-8', { serviceHeader: 'ns/\xff' }, '400 BAD_REQUEST'],
  ['header without a slash', { serviceHeader: 'hello' }, '400 BAD_REQUEST'],
  ['empty header', { serviceHeader: '' }, '400 BAD_REQUEST'],
  ['Host name.ns.weir', { host: 'hello.demo.weir', path: '/p' }, 'demo/hello /p'],
  ['Host in capitals with a port', { host: 'HELLO.Demo.WEIR:7980' }, 'demo/hello /'],
  ['Host name.weir is in the namespace default', { host: 'hello.weir' }, 'default/hello /'],
  ['Host with a trailing dot', { host: 'hello.demo.weir.' }, 'demo/hello /'],
  ['Host with three labels names nothing', { host: 'a.b.c.weir' }, '404 ROUTE_NOT_FOUND'],
  ['Host with an underscore names nothing', { host: 'a_b.c.weir' }, '404 ROUTE_NOT_FOUND'],
  ['Host weir alone names nothing', { host: 'weir' }, '404 ROUTE_NOT_FOUND'],
  ['path prefix is stripped', { path: '/svc/demo/hello/a/b?c=d' }, 'demo/hello /a/b?c=d'],
  ['path prefix alone is /', { path: '/svc/demo/hello' }, 'demo/hello /'],
  ['path prefix with a query alone', { path: '/svc/demo/hello?x=1' }, 'demo/hello /?x=1'],
  ['segments are decoded once', { path: '/svc/demo/a%2Fb%2525/x' }, 'demo/a/b%25 /x'],
  ['the rest stays byte for byte', { path: '/svc/demo/hello//a/%2e%2E/b%2Fc;p' }, 'demo/hello //a/%2e%2E/b%2Fc;p'],
  ['a rest that leaves the prefix', { path: '/svc/demo/hello/../../admin' }, '400 BAD_REQUEST'],
  ['a rest that leaves the prefix encoded', { path: '/svc/demo/hello/%2e%2e/x' }, '400 BAD_REQUEST'],
  ['a rest that leaves and returns to a twin', { path: '/svc/demo/hello/../other/x' }, '400 BAD_REQUEST'],
  ['a path that only reaches the prefix by dots', { path: '/x/../svc/demo/hello/' }, '400 BAD_REQUEST'],
  ['dots inside the rest stay', { path: '/svc/demo/hello/a/../b' }, 'demo/hello /a/../b'],
  ['a namespace with a slash', { path: '/svc/a%2Fb/c/' }, '400 BAD_REQUEST'],
  ['a broken escape', { path: '/svc/demo/%zz/' }, '400 BAD_REQUEST'],
  ['a control character', { path: '/svc/demo/a%00/' }, '400 BAD_REQUEST'],
  ['an empty name', { path: '/svc/demo//' }, '404 ROUTE_NOT_FOUND'],
  ['a namespace alone', { path: '/svc/demo' }, '404 ROUTE_NOT_FOUND'],
  ['another path', { path: '/' }, '404 ROUTE_NOT_FOUND'],
  ['asterisk without a name', { path: '*' }, '404 ROUTE_NOT_FOUND'],
  ['absolute-form names by its authority', { absolute: true, host: 'hello.demo.weir', path: '/p' }, 'demo/hello /p'],
  ['absolute-form to another host', { absolute: true, host: 'example.com', path: '/svc/demo/hello/' }, '404 ROUTE_NOT_FOUND'],
];

for (const [name, input, want] of WAYS) {
  test(`route: ${name}`, () => assert.equal(ask(input), want));
}

test('a dedicated listener decides alone: no header or path reaches another service', () => {
  assert.equal(ask({ serviceHeader: 'a/b', host: 'x.y.weir', path: '/svc/c/d/e' }, 'demo/own'), 'demo/own /svc/c/d/e');
});

test('names of object members are plain names', () => {
  assert.equal(serviceOfHost('constructor.weir'), 'default/constructor');
  assert.equal(ask({ path: '/svc/__proto__/__proto__/' }), '__proto__/__proto__ /');
});

test('the cache of Host texts is bounded', () => {
  const router = new Router();
  const route: Route = { service: '', path: '' };
  for (let i = 0; i < 20_000; i++)
    router.route({ host: `h${i}.weir`, path: '/', absolute: false, serviceHeader: null }, null, route);
  assert.ok(router.size <= 4_096);
  assert.equal(route.service, 'default/h19999');
});

test('normalPath removes dot segments, decodes %2e only and cuts the query', () => {
  for (const [path, want] of [
    ['/a/./b/../c', '/a/c'],
    ['/a/%2E%2e/b?x=/../y', '/b'],
    ['/../../x', '/x'],
    ['/a/..', '/'],
    ['/a/b/.', '/a/b/'],
    ['/a%2F../b', '/a%2F../b'],
    ['//a//b', '//a//b'],
    ['/...', '/...'],
  ] as const) {
    assert.equal(normalPath(path), want, path);
  }
});
