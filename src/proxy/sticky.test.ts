import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { placeOf } from '../cluster/sides.ts';
import { stickyPlace } from './sticky.ts';

describe('sticky header', () => {
  const fields = 'accept: */*\r\nX-User: anna\r\nx-user-id: other\r\nvia: 1.1 weir\r\n';

  it('is found whatever its case, by its whole name', () => {
    assert.equal(stickyPlace(fields, 'x-user'), placeOf('anna'));
    assert.equal(stickyPlace(fields, 'x-user-id'), placeOf('other'));
    assert.equal(stickyPlace(fields, 'accept'), placeOf('*/*'));
  });

  it('is -1 where there is none', () => {
    for (const name of ['x-use', 'user', 'anna', 'x-user-id-2']) assert.equal(stickyPlace(fields, name), -1);
    assert.equal(stickyPlace('', 'x-user'), -1);
    assert.equal(stickyPlace('x-user: cut', 'x-user'), -1);
  });
});
