import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  CONTENT_LENGTH,
  connectionTokens,
  FRAMING,
  fieldFlags,
  HOP_BY_HOP,
  HOST,
  internName,
  isFieldValue,
  isHost,
  isToken,
  isTrailerAllowed,
  LOOK_ALIKE,
  PROTECTED,
  unknownNames,
  valueTokens,
  X_WEIR,
  XFF,
} from './fields.ts';

test('hop-by-hop is the list of proxy-semantics §13 and nothing else', () => {
  const hop =
    'connection keep-alive proxy-connection te trailer transfer-encoding upgrade http2-settings proxy-authenticate proxy-authorization';
  for (const name of hop.split(' ')) assert.notEqual(fieldFlags(name) & HOP_BY_HOP, 0, name);
  for (const name of ['host', 'content-length', 'via', 'cookie', 'x-foo', 'expect', 'date'])
    assert.equal(fieldFlags(name) & HOP_BY_HOP, 0, name);
});

test('protected names are those that a Connection token cannot remove', () => {
  const names =
    'host content-length content-type content-anything transfer-encoding authorization cookie forwarded x-forwarded-for ' +
    'x-forwarded-anything via date signature signature-input x-weir-service x-weir-anything';
  for (const name of names.split(' ')) assert.notEqual(fieldFlags(name) & PROTECTED, 0, name);
  for (const name of ['x-foo', 'upgrade', 'keep-alive', 'accept']) assert.equal(fieldFlags(name) & PROTECTED, 0, name);
});

test('underscore twins of framing, hop-by-hop and identity fields are look-alikes; other underscores are not', () => {
  const twins =
    'content_length transfer_encoding x_forwarded_for x_weir_service x-weir_service x-forwarded_foo proxy_authorization keep_alive x_forwarded_client_cert';
  for (const name of twins.split(' ')) assert.notEqual(fieldFlags(name) & LOOK_ALIKE, 0, name);
  for (const name of ['my_header', 'content_type', 'content-length', 'x-weir-service', '_'])
    assert.equal(fieldFlags(name) & LOOK_ALIKE, 0, name);
});

test('an interned name keeps its text, knows its lower case and carries its flags', () => {
  const name = internName('CONTENT-length');
  assert.deepEqual([name.text, name.lower], ['CONTENT-length', 'content-length']);
  assert.equal(name.flags & (FRAMING | CONTENT_LENGTH), FRAMING | CONTENT_LENGTH);
  assert.equal(internName('Host'), internName('Host'));
  assert.notEqual(internName('host').flags & HOST, 0);
  assert.notEqual(internName('X-Forwarded-For').flags & XFF, 0);
  assert.notEqual(internName('X-Weir-Made-Up').flags & X_WEIR, 0);
});

test('names of object prototypes are plain names', () => {
  for (const text of ['__proto__', 'constructor', 'toString', 'hasOwnProperty']) {
    assert.deepEqual({ ...internName(text) }, { text, lower: text.toLowerCase(), flags: 0 });
  }
});

test('names from outside never grow the cache above 1,024, long ones are not kept, and known names survive a flood', () => {
  const host = internName('Host');
  for (let n = 0; n < 5_000; n++) {
    assert.equal(internName(`x-flood-${n}`).lower, `x-flood-${n}`);
    assert.ok(unknownNames() <= 1_024);
  }
  const before = unknownNames();
  internName('x'.repeat(65));
  assert.equal(unknownNames(), before);
  assert.equal(internName('Host'), host);
});

test('tokens and values are what RFC 9110 §5.5 and §5.6.2 say', () => {
  for (const token of ['a', 'GET', "!#$%&'*+-.^_`|~09"]) assert.equal(isToken(token), true, token);
  for (const token of ['', 'a b', 'a:', 'a\r\n', '\xe9', '(', '"', 'a/b']) assert.equal(isToken(token), false, token);
  for (const value of ['', 'a', 'a b', 'a\tb', '\xe9\xff', '"q"']) assert.equal(isFieldValue(value), true, value);
  for (const value of [' a', 'a ', '\ta', 'a\r\nb: c', 'a\nb', 'a\0', '\x7f', '\u0100', '\u4e2d'])
    assert.equal(isFieldValue(value), false, value);
});

test('a host is a strict host[:port] of at most 255 bytes', () => {
  for (const host of ['h', 'a.b-c_d~e', 'h:0', 'h:65535', '1.2.3.4:80', '[::1]', '[2001:db8::1]:8080', 'x'.repeat(255)]) {
    assert.equal(isHost(host), true, host);
  }
  for (const host of [
    '',
    'h:',
    'h:65536',
    'h:999999',
    ':80',
    'a@h',
    'h/',
    'h,h',
    'h h',
    '[::1',
    '::1',
    '[1.2.3.4]',
    '[]',
    'h:1:2',
    'x'.repeat(256),
    'h\xe9',
  ]) {
    assert.equal(isHost(host), false, host);
  }
});

test('Connection tokens are read over all fields, in lower case, empty members skipped; a bad member is null', () => {
  assert.deepEqual(valueTokens(' Close , , X-Foo,'), ['close', 'x-foo']);
  assert.deepEqual(valueTokens(''), []);
  assert.equal(valueTokens('a b'), null);
  assert.equal(valueTokens('"close"'), null);
  const names = [internName('Connection'), internName('Host'), internName('connection')];
  assert.deepEqual(connectionTokens(names, ['Keep-Alive', 'h', 'X-Foo']), ['keep-alive', 'x-foo']);
  assert.equal(connectionTokens(names, ['close', 'h', 'a;b']), null);
  assert.deepEqual(connectionTokens([], []), []);
});

test('trailers that may go on are the five of the allow-list', () => {
  for (const name of ['grpc-status', 'Grpc-Message', 'grpc-status-details-bin', 'Server-Timing', 'content-digest']) {
    assert.equal(isTrailerAllowed(internName(name)), true, name);
  }
  for (const name of ['host', 'content-length', 'set-cookie', 'x-foo'])
    assert.equal(isTrailerAllowed(internName(name)), false, name);
});
