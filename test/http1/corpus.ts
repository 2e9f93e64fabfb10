// Bytes that every test of the codec shares: each row of proxy-semantics §12, the examples of RFC 9112, each method with each
// kind of body and version, and known smuggling shapes. `status` 0: accepted; else the status of the refusal.

export interface RequestCase {
  readonly name: string;
  readonly text: string;
  readonly status: number;
}

const H = 'Host: h.example\r\n';

function get(fields: string, line = 'GET /p HTTP/1.1'): string {
  return `${line}\r\n${H}${fields}\r\n`;
}

function chunked(body: string, fields = ''): string {
  return `POST /p HTTP/1.1\r\n${H}Transfer-Encoding: chunked\r\n${fields}\r\n${body}`;
}

const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'];

function everyKind(): RequestCase[] {
  const cases: RequestCase[] = [];
  for (const method of METHODS) {
    for (const version of ['1.0', '1.1']) {
      const line = `${method} /p?q=1 HTTP/${version}\r\n${H}`;
      cases.push({ name: `${method} ${version} without a body`, text: `${line}\r\n`, status: 0 });
      cases.push({ name: `${method} ${version} length 0`, text: `${line}Content-Length: 0\r\n\r\n`, status: 0 });
      cases.push({ name: `${method} ${version} length 5`, text: `${line}Content-Length: 5\r\n\r\nhello`, status: 0 });
      cases.push({
        name: `${method} ${version} chunked`,
        text: `${line}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n`,
        status: version === '1.1' ? 0 : 400,
      });
    }
  }
  return cases;
}

function bad(status: number, rows: Readonly<Record<string, string>>): RequestCase[] {
  return Object.entries(rows).map(([name, text]) => ({ name, text, status }));
}

export const REQUESTS: readonly RequestCase[] = [
  ...everyKind(),
  ...bad(0, {
    'no field but Host': get(''),
    'RFC 9112 §2.1 example':
      'GET /hello.txt HTTP/1.1\r\nUser-Agent: curl/7.64.1\r\nHost: www.example.com\r\nAccept-Language: en, mi\r\n\r\n',
    'absolute-form': get('', 'GET http://h.example/pub/WWW/TheProject.html HTTP/1.1'),
    'absolute-form without a path': get('', 'GET http://h.example:80 HTTP/1.1'),
    'asterisk-form': get('', 'OPTIONS * HTTP/1.1'),
    'two slashes stay a path': get('', 'GET //evil/p HTTP/1.1'),
    'odd characters in the target': get('', 'GET /a|b{c}"d^`<> HTTP/1.1'),
    'one empty line before': `\r\n${get('')}`,
    'pipelined pair': get('') + get('A: b\r\n'),
    'pipelined with bodies': `POST /1 HTTP/1.1\r\n${H}Content-Length: 3\r\n\r\nabc${chunked('3\r\nabc\r\n0\r\n\r\n')}${get('')}`,
    'OWS around the value': get('A: \t b c\t \r\n'),
    'no OWS': get('A:b\r\n'),
    'empty value': get('A:\r\nB: \r\n'),
    '8-bit value': get('A: \xe9\xff\x80\r\n'),
    'every tchar in a name': get("!#$%&'*+-.^_`|~09AZaz: v\r\n"),
    'HTAB within a value': get('A: b\tc\r\n'),
    'names of object prototypes': get('__proto__: 1\r\nconstructor: 2\r\ntoString: 3\r\n'),
    'leading zeros of Content-Length': 'POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0005\r\n\r\nhello',
    '15 digits of Content-Length with little body': 'POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 000000000000002\r\n\r\nok',
    'Content_Length look-alike': get('Content_Length: 5\r\nTransfer_Encoding: chunked\r\n'),
    'Transfer-Encoding in capitals': 'POST / HTTP/1.1\r\nHost: h\r\nTRANSFER-ENCODING: CHUNKED\r\n\r\n0\r\n\r\n',
    'Connection: close': get('Connection: close\r\n'),
    'Connection list with empty members': get('Connection: , keep-alive ,, x-foo\r\nX-Foo: 1\r\n'),
    'HTTP/1.0 keep-alive': `${get('Connection: keep-alive\r\n', 'GET /p HTTP/1.0')}${get('', 'GET /q HTTP/1.0')}`,
    'Expect: 100-continue': 'POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\nok',
    'IPv6 Host': 'GET / HTTP/1.1\r\nHost: [2001:db8::1]:8080\r\n\r\n',
    'upper-case chunk size': chunked('A\r\n0123456789\r\n0\r\n\r\n'),
    'leading zeros of a chunk size': chunked('0000000000005\r\nhello\r\n0000\r\n\r\n'),
    'several chunks': chunked('1\r\na\r\n2\r\nbc\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n'),
    'chunk extensions': chunked('5;a;b=c;d="e\\"f g"\r\nhello\r\n0;last=1\r\n\r\n'),
    trailers: chunked('5\r\nhello\r\n0\r\ngrpc-status: 0\r\nX-Y:  z \r\n\r\n'),
    'chunk data that looks like framing': chunked('7\r\n0\r\n\r\nGE\r\n0\r\n\r\n'),
  }),
  ...bad(400, {
    'two Host fields': get('Host: h.example\r\n'),
    'no Host on 1.1': 'GET / HTTP/1.1\r\nA: b\r\n\r\n',
    'no Host on 1.0': 'GET / HTTP/1.0\r\nA: b\r\n\r\n',
    'no field at all': 'GET / HTTP/1.1\r\n\r\n',
    'empty Host': 'GET / HTTP/1.1\r\nHost:\r\n\r\n',
    'Host with a path': 'GET / HTTP/1.1\r\nHost: h/evil\r\n\r\n',
    'Host list': 'GET / HTTP/1.1\r\nHost: h, evil\r\n\r\n',
    'Host with a space': 'GET / HTTP/1.1\r\nHost: h evil\r\n\r\n',
    'Host with user information': 'GET / HTTP/1.1\r\nHost: a@h\r\n\r\n',
    'Host port above 65535': 'GET / HTTP/1.1\r\nHost: h:99999\r\n\r\n',
    'Host port no number': 'GET / HTTP/1.1\r\nHost: h:abc\r\n\r\n',
    'Host bracket left open': 'GET / HTTP/1.1\r\nHost: [::1\r\n\r\n',
    'Host bracket without IPv6': 'GET / HTTP/1.1\r\nHost: [1.2.3.4]\r\n\r\n',
    'asterisk with GET': get('', 'GET * HTTP/1.1'),
    'fragment in the target': get('', 'GET /a#frag HTTP/1.1'),
    'fragment alone': get('', 'GET #frag HTTP/1.1'),
    'absolute-form https': get('', 'GET https://h.example/ HTTP/1.1'),
    'absolute-form with user information': get('', 'GET http://a@h.example/ HTTP/1.1'),
    'absolute-form without authority': get('', 'GET http:///p HTTP/1.1'),
    'authority-form with GET': get('', 'GET h.example:80 HTTP/1.1'),
    'target without a slash': get('', 'GET p HTTP/1.1'),
    '8-bit target': get('', 'GET /\xe9 HTTP/1.1'),
    'control in the target': get('', 'GET /\x01 HTTP/1.1'),
    'two spaces before the target': get('', 'GET  / HTTP/1.1'),
    'two spaces before the version': get('', 'GET /  HTTP/1.1'),
    'tab in the request line': get('', 'GET\t/ HTTP/1.1'),
    'space after the version': get('', 'GET / HTTP/1.1 '),
    'no version': get('', 'GET /'),
    'space before the method': get('', ' GET / HTTP/1.1'),
    'bad method character': get('', 'G(T / HTTP/1.1'),
    'two empty lines before': `\r\n\r\n${get('')}`,
    'bare LF everywhere': 'GET / HTTP/1.1\nHost: h\n\n',
    'bare LF in one field': `GET / HTTP/1.1\r\n${H}A: b\nC: d\r\n\r\n`,
    'bare CR in a value': get('A: b\rC: d\r\n'),
    'bare CR in the request line': get('', 'GET / HTTP/1.1\r'),
    'NUL in a value': get('A: b\0c\r\n'),
    'DEL in a value': get('A: b\x7fc\r\n'),
    'control in a value': get('A: b\x0bc\r\n'),
    'NUL in a name': get('A\0: b\r\n'),
    'obs-fold': get('A: b\r\n c\r\n'),
    'obs-fold by tab': get('A: b\r\n\tc\r\n'),
    'fold of the first field': 'GET / HTTP/1.1\r\n Host: h\r\n\r\n',
    'space before the colon': get('A : b\r\n'),
    'tab before the colon': get('A\t: b\r\n'),
    'empty name': get(': b\r\n'),
    'line without a colon': get('Abc\r\n'),
    '8-bit name': get('\xe9: b\r\n'),
    'two equal Content-Length fields': get('Content-Length: 0\r\nContent-Length: 0\r\n'),
    'two different Content-Length fields': get('Content-Length: 1\r\nContent-Length: 2\r\n'),
    'Content-Length list': get('Content-Length: 5, 5\r\n'),
    'signed Content-Length': get('Content-Length: +5\r\n'),
    'negative Content-Length': get('Content-Length: -1\r\n'),
    'hex Content-Length': get('Content-Length: 0x5\r\n'),
    'Content-Length with a space': get('Content-Length: 1 2\r\n'),
    'empty Content-Length': get('Content-Length:\r\n'),
    '16 digits of Content-Length': get('Content-Length: 0000000000000005\r\n'),
    'Content-Length beside Transfer-Encoding': get('Content-Length: 5\r\nTransfer-Encoding: chunked\r\n'),
    'Transfer-Encoding beside Content-Length': get('Transfer-Encoding: chunked\r\nContent-Length: 5\r\n'),
    'two Transfer-Encoding fields': get('Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n'),
    'empty Transfer-Encoding': get('Transfer-Encoding:\r\n'),
    'empty Transfer-Encoding beside Content-Length': get('Transfer-Encoding:\r\nContent-Length: 5\r\n'),
    'list with an empty coding': get('Transfer-Encoding: ,chunked\r\n'),
    'chunked, gzip': get('Transfer-Encoding: chunked, gzip\r\n'),
    'gzip alone': get('Transfer-Encoding: gzip\r\n'),
    'identity alone': get('Transfer-Encoding: identity\r\n'),
    'quoted chunked': get('Transfer-Encoding: "chunked"\r\n'),
    'chunked with a vertical tab': get('Transfer-Encoding: \x0bchunked\r\n'),
    xchunked: get('Transfer-Encoding: xchunked\r\n'),
    'Transfer-Encoding on 1.0': get('Transfer-Encoding: chunked\r\n', 'POST /p HTTP/1.0'),
    'Connection names content-length': get('Connection: content-length\r\nContent-Length: 0\r\n'),
    'Connection names transfer-encoding': get('Connection: close, Transfer-Encoding\r\n'),
    'Connection names host': get('Connection: host\r\n'),
    'Connection no list of tokens': get('Connection: "close"\r\n'),
    'chunk size empty': chunked('\r\nhello\r\n0\r\n\r\n'),
    'chunk size with 0x': chunked('0x5\r\nhello\r\n0\r\n\r\n'),
    'chunk size signed': chunked('+5\r\nhello\r\n0\r\n\r\n'),
    'chunk size with a leading space': chunked(' 5\r\nhello\r\n0\r\n\r\n'),
    'chunk size with a trailing space': chunked('5 \r\nhello\r\n0\r\n\r\n'),
    'chunk size of 14 digits': chunked('00000000000005\r\nhello\r\n0\r\n\r\n'),
    'chunk size with bare LF': chunked('5\nhello\r\n0\r\n\r\n'),
    'chunk size with CR CR': chunked('5\r\rhello\r\n0\r\n\r\n'),
    'chunk longer than said': chunked('4\r\nhello\r\n0\r\n\r\n'),
    'chunk shorter than said': chunked('6\r\nhello\r\n0\r\n\r\n'),
    'chunk end bare LF': chunked('5\r\nhello\n0\r\n\r\n'),
    'chunk end CR other': chunked('5\r\nhello\rX0\r\n\r\n'),
    'extension with a control': chunked('5;a\x01\r\nhello\r\n0\r\n\r\n'),
    'extension without a name': chunked('5;\r\nhello\r\n0\r\n\r\n'),
    'extension with bare LF': chunked('5;a\nhello\r\n0\r\n\r\n'),
    'extension without a value': chunked('5;a=\r\nhello\r\n0\r\n\r\n'),
    'extension with an open quote': chunked('5;a="b\r\nhello\r\n0\r\n\r\n'),
    'last chunk CR other': chunked('0\r\n\rX'),
    'trailer Content-Length': chunked('0\r\nContent-Length: 5\r\n\r\n'),
    'trailer Transfer-Encoding': chunked('0\r\nTransfer-Encoding: chunked\r\n\r\n'),
    'trailer with bare LF': chunked('0\r\nA: b\n\r\n'),
    'trailer bare LF alone': chunked('0\r\n\n'),
    'trailer folded': chunked('0\r\nA: b\r\n c\r\n\r\n'),
    'trailer without a colon': chunked('0\r\nGET / HTTP/1.1\r\n\r\n'),
    'TLS client hello': '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n',
  }),
  ...bad(505, {
    'HTTP/2.0': get('', 'GET / HTTP/2.0'),
    'HTTP/1.2': get('', 'GET / HTTP/1.2'),
    'HTTP/0.9': get('', 'GET / HTTP/0.9'),
    'ICE/1.0': get('', 'SOURCE / ICE/1.0'),
    'RTSP/1.0': get('', 'DESCRIBE /x RTSP/1.0'),
    'lower-case http/1.1': get('', 'GET / http/1.1'),
    'HTTP/2 preface': 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
  }),
  ...bad(501, {
    'gzip, chunked': get('Transfer-Encoding: gzip, chunked\r\n', 'POST /p HTTP/1.1'),
    'identity, chunked': get('Transfer-Encoding: identity, chunked\r\n', 'POST /p HTTP/1.1'),
  }),
  ...bad(417, { 'other expectation': get('Expect: 200-ok\r\n') }),
  ...bad(403, { CONNECT: get('', 'CONNECT h.example:443 HTTP/1.1') }),
  ...bad(414, {
    'target above 8 KiB': get('', `GET /${'a'.repeat(8_192)} HTTP/1.1`),
    'request line without end': `GET /${'a'.repeat(20_000)}`,
  }),
  ...bad(431, {
    'head above 16 KiB': get(`A: ${'b'.repeat(17_000)}\r\n`),
    '101 fields': get('A: b\r\n'.repeat(100)),
    '17 trailers': chunked(`0\r\n${'A: b\r\n'.repeat(17)}\r\n`),
    'trailers above 4 KiB': chunked(`0\r\nA: ${'b'.repeat(5_000)}\r\n\r\n`),
  }),
  ...bad(413, {
    'chunk extension above 256 bytes': chunked(`5;${'a'.repeat(256)}\r\nhello\r\n0\r\n\r\n`),
    'framing far above the body': chunked(`${`1;${'a'.repeat(250)}\r\nx\r\n`.repeat(300)}0\r\n\r\n`),
  }),
];

export interface ResponseCase {
  readonly name: string;
  readonly text: string;
  readonly method?: string;
  /** `ok`: complete; `protocol`: the reply is refused; `reset`: it ended too early. */
  readonly outcome: 'ok' | 'protocol' | 'reset';
  /** The socket may be used again. */
  readonly reusable: boolean;
}

function ok(rows: Readonly<Record<string, string>>, reusable: boolean, method = 'GET'): ResponseCase[] {
  return Object.entries(rows).map(([name, text]) => ({ name, text, method, outcome: 'ok', reusable }));
}

function broken(outcome: 'protocol' | 'reset', rows: Readonly<Record<string, string>>): ResponseCase[] {
  return Object.entries(rows).map(([name, text]) => ({ name, text, outcome, reusable: false }));
}

const CHUNKED = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n';

export const RESPONSES: readonly ResponseCase[] = [
  ...ok(
    {
      'length 5': 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello',
      'length 0': 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n',
      'RFC 9112 example':
        'HTTP/1.1 200 OK\r\nDate: Mon, 27 Jul 2009 12:28:53 GMT\r\nServer: Apache\r\nContent-Length: 2\r\nVary: Accept-Encoding\r\n\r\nHi',
      chunked: `${CHUNKED}5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n`,
      'chunked with trailers': `${CHUNKED}5\r\nhello\r\n0\r\nServer-Timing: a\r\n\r\n`,
      'chunked empty': `${CHUNKED}0\r\n\r\n`,
      '204 has no body': 'HTTP/1.1 204 No Content\r\n\r\n',
      '304 with a length has no body': 'HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n',
      'no reason': 'HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok',
      'no space before no reason': 'HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok',
      '100 before': 'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok',
      '103 before': 'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok',
      '16 informational': `${'HTTP/1.1 103 E\r\n\r\n'.repeat(16)}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok`,
      '1.0 with keep-alive': 'HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok',
      '599': 'HTTP/1.1 599 X\r\nContent-Length: 0\r\n\r\n',
      'Set-Cookie lines stay apart': 'HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n',
      '8-bit reason and value': 'HTTP/1.1 200 \xe9\r\nA: \xff\r\nContent-Length: 0\r\n\r\n',
      'keep-alive hint': 'HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5\r\nContent-Length: 0\r\n\r\n',
    },
    true,
  ),
  ...ok(
    {
      'HEAD with a length': 'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n',
      'HEAD with chunked': 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n',
    },
    true,
    'HEAD',
  ),
  ...ok(
    {
      'until close': 'HTTP/1.1 200 OK\r\n\r\nhello',
      'until close on 1.0': 'HTTP/1.0 200 OK\r\nServer: x\r\n\r\nhello',
      'Connection: close': 'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok',
      '1.0 with a length': 'HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok',
      'bytes after the end': 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokX',
      '204 that announces a body': 'HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\n',
      '204 with a body': 'HTTP/1.1 204 No Content\r\n\r\nbody',
      '100 after the final head': 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 100 Continue\r\n\r\n',
      'keep-alive hint too short': 'HTTP/1.1 200 OK\r\nKeep-Alive: timeout=2\r\nContent-Length: 0\r\n\r\n',
    },
    false,
  ),
  ...broken('protocol', {
    'status 600': 'HTTP/1.1 600 X\r\nContent-Length: 0\r\n\r\n',
    'status 099': 'HTTP/1.1 099 X\r\nContent-Length: 0\r\n\r\n',
    'status of four digits': 'HTTP/1.1 2000 OK\r\n\r\n',
    'status of two digits': 'HTTP/1.1 20 OK\r\n\r\n',
    'HTTP/2.0': 'HTTP/2.0 200 OK\r\n\r\n',
    ICY: 'ICY 200 OK\r\n\r\n',
    'HTTP/0.9': '<html>hello</html>\r\n\r\n',
    'empty line before': '\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n',
    'bare LF': 'HTTP/1.1 200 OK\nContent-Length: 0\n\n',
    'obs-fold': 'HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 0\r\n\r\n',
    'space before the colon': 'HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n',
    'NUL in a value': 'HTTP/1.1 200 OK\r\nA: \0\r\nContent-Length: 0\r\n\r\n',
    'control in the reason': 'HTTP/1.1 200 O\x01K\r\nContent-Length: 0\r\n\r\n',
    'two Content-Length': 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok',
    'Content-Length list': 'HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok',
    'Content-Length and chunked': 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    'Transfer-Encoding gzip': 'HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx',
    'Transfer-Encoding gzip, chunked': 'HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n',
    'Transfer-Encoding on 1.0': 'HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    'bad chunk size': `${CHUNKED}x\r\nhello\r\n0\r\n\r\n`,
    'trailer Content-Length': `${CHUNKED}0\r\nContent-Length: 1\r\n\r\n`,
    '103 on 1.0': 'HTTP/1.0 103 E\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok',
    '103 with Connection: close': 'HTTP/1.1 103 E\r\nConnection: close\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok',
    '103 with a length': 'HTTP/1.1 103 E\r\nContent-Length: 2\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok',
    '17 informational': `${'HTTP/1.1 103 E\r\n\r\n'.repeat(17)}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok`,
    '101 that was not asked for': 'HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n',
    '101 fields': `HTTP/1.1 200 OK\r\n${'A: b\r\n'.repeat(101)}\r\n`,
    'head above 16 KiB': `HTTP/1.1 200 OK\r\nA: ${'b'.repeat(17_000)}\r\n\r\n`,
    'Connection names content-length': 'HTTP/1.1 200 OK\r\nConnection: content-length\r\nContent-Length: 0\r\n\r\n',
  }),
  ...broken('reset', {
    nothing: '',
    'half a head': 'HTTP/1.1 200 OK\r\nContent-Le',
    'short length': 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel',
    'missing last chunk': `${CHUNKED}5\r\nhello\r\n`,
    'missing end of trailers': `${CHUNKED}5\r\nhello\r\n0\r\n`,
    'only a 100': 'HTTP/1.1 100 Continue\r\n\r\n',
  }),
];
