#!/usr/bin/env node
// biome-ignore-all lint: plain old JavaScript on purpose: it must parse and run on any Node that a system may have.
// Owns starting weir with a Node that can run it. Below the floor it starts the Node that npm installed beside weir, else it says what
// is missing (exit 2).
'use strict';
var fs = require('fs');
var os = require('os');
var path = require('path');
var childProcess = require('child_process');

var root = path.join(fs.realpathSync(__dirname), '..');
var built = path.join(root, 'dist', 'src', 'cli', 'main.js');
var source = path.join(root, 'src', 'cli', 'main.ts');

// A checkout runs its sources (Node 24 takes the types off by itself); an installed package has only what was built.
var inCheckout = fs.existsSync(source) && !/[\\/]node_modules[\\/]/.test(source);
var main = inCheckout ? source : built;
var floor = inCheckout ? [24, 0] : [22, 19];

function atLeast(version) {
  var parts = version.split('.');
  var major = Number(parts[0]);
  return major > floor[0] || (major === floor[0] && Number(parts[1]) >= floor[1]);
}

function pinnedNode() {
  var name = 'node-' + os.platform() + '-' + os.arch();
  var places = [path.join(root, 'node_modules', name), path.join(root, '..', name)];
  for (var i = 0; i < places.length; i++) {
    var file = path.join(places[i], 'bin', 'node');
    if (fs.existsSync(file)) return file;
  }
  return null;
}

function fail(words) {
  process.stderr.write('weir: ' + words + '\n');
  process.exit(2);
}

// Starts another Node in our place: signals go on to it, its end is ours.
function startWith(node) {
  var child = childProcess.spawn(node, [main].concat(process.argv.slice(2)), { stdio: 'inherit' });
  ['SIGTERM', 'SIGINT', 'SIGHUP'].forEach(function (signal) {
    process.on(signal, function () {
      // Ctrl-C reaches the whole group by itself; a second one from us would mean "stop at once".
      if (signal !== 'SIGINT' || !process.stdin.isTTY) child.kill(signal);
    });
  });
  child.on('error', function (error) {
    fail('cannot start ' + node + ': ' + error.message);
  });
  child.on('exit', function (code, signal) {
    process.exit(code === null ? 128 + (os.constants.signals[signal] || 0) : code);
  });
}

function start() {
  if (!fs.existsSync(main)) return fail('nothing to run: ' + main + ' is missing (npm run build)');
  if (atLeast(process.versions.node)) {
    return import(require('url').pathToFileURL(main).href).catch(function (error) {
      fail(error && error.stack ? error.stack : String(error));
    });
  }
  var node = pinnedNode();
  if (node !== null) return startWith(node);
  return fail(
    'Node ' +
      floor.join('.') +
      ' or newer is needed, this is ' +
      process.versions.node +
      ', and no pinned one is installed beside weir',
  );
}

start();
