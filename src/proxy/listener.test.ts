// What a listener decides before a connection reaches the codec.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isOneTooMany, listenText, MAX_PER_ADDRESS } from './listener.ts';

test('one address has at most 1,000 connections, unless it is this machine', () => {
  for (const address of ['10.0.0.1', '2001:db8::1', '::ffff:10.0.0.1']) {
    assert.equal(isOneTooMany(address, MAX_PER_ADDRESS - 1), false);
    assert.equal(isOneTooMany(address, MAX_PER_ADDRESS), true);
  }
  for (const address of ['127.0.0.1', '::1', '::ffff:127.0.0.1', '']) assert.equal(isOneTooMany(address, 50_000), false);
});

test('a listen address reads as people write it', () => {
  assert.equal(listenText({ host: '127.0.0.1', port: 80 }), '127.0.0.1:80');
  assert.equal(listenText({ host: '::1', port: 80 }), '[::1]:80');
  assert.equal(listenText({ host: '', port: 0, path: '/run/x' }), 'unix:/run/x');
});
