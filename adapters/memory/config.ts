// Owns the configuration keys of kind `memory`. Called by index.ts; must never hold a key that every source takes.
import { type Static, Type } from 'typebox';

export const memoryConfig = Type.Object(
  {
    /** Sources with the same name share one embedded registry; without it each source has its own, so that nothing is shared by accident. */
    registry: Type.Optional(Type.String({ minLength: 1, maxLength: 255 })),
  },
  { additionalProperties: false },
);

export type MemoryConfig = Static<typeof memoryConfig>;
