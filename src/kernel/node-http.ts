// Owns the way to Node's own HTTP server that a start can afford. Called by http1 (names of statuses) and api (its server).
// `import … from 'node:http'` reads every export, and WebSocket and its like then load a whole second HTTP client (25 ms).

/** `createServer` and `STATUS_CODES` of node:http. */
export const { createServer, STATUS_CODES } = process.getBuiltinModule('node:http');
