// The wire against the published vectors (encoded with protoc from the public protos) and against captures of a 1.18.1.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { codec, type DiscoverResponse, TYPE_INSTANCE, TYPE_ROUTING, TYPE_SERVICES, textOf } from './protocol.ts';
import { Question } from './question.ts';
import { CAPTURED_INSTANCE } from './test-support.ts';

const { decodeRequest, decodeResponse, encodeRequest } = codec('Discover');
const register = codec('RegisterInstance');

function answer(hex: string): DiscoverResponse {
  return decodeResponse(Buffer.from(hex.replace(/\s/g, ''), 'hex'));
}

describe('polaris wire', () => {
  it('a question is encoded as protoc does, with and without a revision', () => {
    const question = new Question(TYPE_INSTANCE, 'default', 'demo');
    assert.equal(question.bytes.toString('hex'), '080112130a060a0464656d6f12090a0764656661756c74');
    question.revision = 'abc';
    assert.equal(question.bytes.toString('hex'), '0801121a0a060a0464656d6f12090a0764656661756c747a050a03616263');
    assert.deepEqual(decodeRequest(question.bytes).service?.revision, { value: 'abc' });
  });

  it('the list of all namespaces still has a service in its question: without it 1.18.1 ends the stream', () => {
    const request = decodeRequest(new Question(TYPE_SERVICES, '', '').bytes);
    assert.notEqual(request.service, undefined);
    assert.equal(request.service?.namespace, undefined);
  });

  it('an instance is encoded as protoc does; a false wrapper may be longer than the server writes it', () => {
    const bytes = register.encodeRequest({
      service: { value: 'demo' },
      namespace: { value: 'default' },
      host: { value: '127.0.0.1' },
      port: { value: 8080 },
      weight: { value: 100 },
      healthCheck: { type: 1, heartbeat: { ttl: { value: 5 } } },
      healthy: { value: true },
      isolate: {},
      metadata: [{ key: 'env', value: 'prod' }],
      enableHealthCheck: { value: true },
    });
    assert.equal(
      bytes.toString('hex'),
      '12060a0464656d6f1a090a0764656661756c74220b0a093132372e302e302e312a0308903f4a0208645208080112040a0208055a0208016200720b0a03656e76120470726f64a201020801',
    );
    assert.deepEqual(register.decodeRequest(Buffer.from('62020800', 'hex')).isolate, { value: false });
    assert.deepEqual(register.decodeRequest(Buffer.from('6200', 'hex')).isolate, {});
  });

  it('a captured answer of one instance reads as it was registered', () => {
    const { code, type, service, instances, aliasFor } = answer(CAPTURED_INSTANCE);
    assert.equal(code?.value, 200_000);
    assert.equal(type, TYPE_INSTANCE);
    assert.equal(textOf(service?.name), 'demo');
    assert.equal(textOf(service?.revision), 'b8fe0fef48f3cf2f6d76e2dcf202ccb09eb4d3e6');
    assert.equal(textOf(service?.id), textOf(aliasFor?.id));
    const [one] = instances ?? [];
    assert.equal(textOf(one?.id), 'dfe2274c0de8f3bd1daea5a455f6ccf3f024febd');
    assert.equal(one?.port?.value, 8080);
    assert.equal(one?.healthCheck?.heartbeat?.ttl?.value, 5);
    assert.deepEqual(one?.isolate, {});
    assert.deepEqual(one?.metadata, [{ key: 'env', value: 'prod' }]);
  });

  it('captured refusals and "no change" read as what they are', () => {
    const same = answer(
      '0a0408c19a0c121c0a1a646973636f7665722064617461206973206e6f206368616e67651801223f0a060a0464656d6f12090a0764656661756c747a2a0a28623866653066656634386633636632663664373665326463663230 32636362303965623464336536',
    );
    assert.equal(same.code?.value, 200_001);
    assert.equal(same.instances, undefined);
    const missing = answer(
      '0a0408cab61812140a126e6f7420666f756e64207265736f75726365180122130a060a046e6f706512090a0764656661756c74',
    );
    assert.deepEqual([missing.code?.value, textOf(missing.service?.name)], [400_202, 'nope']);
    const wrongType = answer(
      '0a040884b518121b0a19696e76616c696420646973636f766572207265736f75726365180322130a060a046e6f706512090a0764656661756c74',
    );
    assert.deepEqual([wrongType.code?.value, wrongType.type], [400_004, TYPE_ROUTING]);
    const denied = answer('0a0408e9bc18120f0a0d696e76616c696420746f6b656e');
    assert.deepEqual([denied.code?.value, denied.type, denied.service], [401_001, undefined, undefined]);
  });

  it('a captured list of services reads whole, its own name present and empty', () => {
    const list = answer(`
      0a0408c09a0c12110a0f657865637574652073756363657373180622390a0012090a0764656661756c747a2a0a28333933383030343063386463303263353366346636663064346565633938333831383032373033344a130a06
      0a0462756c6b12090a0764656661756c744a100a030a017212090a0764656661756c744a110a040a02686812090a0764656661756c744a130a060a0464656d6f12090a0764656661756c744a110a040a02626212090a07646566
      61756c74`);
    assert.deepEqual(
      list.services?.map(({ name }) => textOf(name)),
      ['bulk', 'r', 'hh', 'demo', 'bb'],
    );
    assert.equal(textOf(list.service?.name), '');
  });

  it('keys of metadata such as __proto__ survive the wire', () => {
    const metadata = [
      { key: '__proto__', value: 'a' },
      { key: 'constructor', value: 'b' },
    ];
    const { decodeRequest: decode, encodeRequest: encode } = register;
    assert.deepEqual(decode(encode({ metadata })).metadata, metadata);
    assert.deepEqual(encodeRequest({}), Buffer.alloc(0));
  });
});
