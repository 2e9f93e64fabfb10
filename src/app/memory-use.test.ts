// What the control group says about memory, in both of its versions, inside and outside of a container.
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, it } from 'node:test';
import { CgroupMemory } from './memory-use.ts';

const MB = 1_048_576;
const TOTAL = 24_000 * MB;
const V1_NONE = '9223372036854771712';

/** Looks at a made-up /proc/self/cgroup and mount. */
function look(self: string, files: Readonly<Record<string, string>>) {
  const folder = mkdtempSync(join(tmpdir(), 'weir-cgroup-'));
  try {
    for (const [name, text] of Object.entries({ ...files, self })) {
      mkdirSync(dirname(join(folder, name)), { recursive: true });
      writeFileSync(join(folder, name), `${text}\n`);
    }
    return new CgroupMemory({ self: join(folder, 'self'), root: folder }).look(TOTAL);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function v2(folder: string, max: string, high = 'max') {
  return {
    [`${folder}memory.current`]: String(100 * MB),
    [`${folder}memory.max`]: max,
    [`${folder}memory.high`]: high,
    [`${folder}memory.stat`]: `anon ${50 * MB}\ninactive_anon 7\ninactive_file ${25 * MB}\nactive_file ${5 * MB}`,
    [`${folder}cgroup.procs`]: '17',
  };
}

function v1(folder: string, limit: string) {
  return {
    [`${folder}memory.usage_in_bytes`]: String(100 * MB),
    [`${folder}memory.limit_in_bytes`]: limit,
    [`${folder}memory.stat`]: `cache 1\ninactive_file ${20 * MB}\ntotal_inactive_file ${25 * MB}\ntotal_active_file ${5 * MB}`,
    [`${folder}cgroup.procs`]: '17',
  };
}

const USED = { used: 70 * MB, limit: 200 * MB };
const LIMIT = String(200 * MB);

describe('memory of the own control group', () => {
  it('is what is charged but for pages of files, v2 and v1', () => {
    assert.deepEqual(look('0::/system.slice/weir.service', v2('system.slice/weir.service/', LIMIT)), USED);
    assert.deepEqual(look('5:cpu:/other\n4:hugetlb,memory:/weir\n0::/', v1('memory/weir/', LIMIT)), USED);
  });

  it('is read at the mount in a container, where the path is that of the host', () => {
    assert.deepEqual(look('0::/kubepods/pod1/abc', v2('', LIMIT)), USED);
    assert.deepEqual(look('0::/../../abc', v2('', LIMIT)), USED);
    assert.deepEqual(look('4:memory:/docker/abc', v1('memory/', LIMIT)), USED);
  });

  it('has the lower of the limits at which it is slowed down and killed', () => {
    assert.equal(look('0::/', v2('', LIMIT, String(150 * MB)))?.limit, 150 * MB);
    assert.equal(look('0::/', v2('', 'max', LIMIT))?.limit, 200 * MB);
  });

  it('is nothing as long as other processes are in the group: only the limit counts', () => {
    const alone = v2('', LIMIT);
    assert.deepEqual(look('0::/', { ...alone, 'cgroup.procs': '17\n18' }), { used: 0, limit: 200 * MB });
  });

  it('is not asked where there is no limit, or none below what the host has', () => {
    assert.equal(look('0::/', v2('', 'max')), null);
    assert.equal(look('4:memory:/', v1('memory/', V1_NONE)), null);
    assert.equal(look('0::/', v2('', String(TOTAL))), null);
  });

  it('is not asked where nothing of it can be read', () => {
    assert.equal(look('', {}), null);
    assert.equal(look('0::/', {}), null);
    assert.equal(look('rubbish\n:::\n4:memory', { 'memory.current': 'much' }), null);
    assert.equal(new CgroupMemory({ self: '/nowhere/self', root: '/nowhere' }).look(TOTAL), null);
    const { 'memory.stat': _, ...rest } = v2('', LIMIT);
    assert.deepEqual(look('0::/', rest), { used: 100 * MB, limit: 200 * MB }, 'all of it counts then');
  });
});
