// Nodes of the npm peers' DHT and whole npm swarms, told what to do by JSON lines: node dht_peer.js <dialect>
// Each command gives one line back, with its result or {error}. All stay on 127.0.0.1, or DHT_HOST in the environment.
'use strict'
const path = require('path')
const readline = require('readline')
const { EventEmitter } = require('events')

const dialect = process.argv[2]
const names = { hypercore: ['hyperswarm', '@hyperswarm/dht'], dweb: ['dswarm', '@dswarm/dht'] }[dialect]
const load = name => require(require.resolve(name, { paths: [path.join(__dirname, dialect)] }))
const HOST = process.env.DHT_HOST || '127.0.0.1'

// The swarms shall find each other through the DHT alone, and send nothing to the network of this machine.
const silent = () => Object.assign(new EventEmitter(), { query () {}, response () {}, destroy (done) { if (done) done() } })
const discovery = path.dirname(require.resolve(names[0], { paths: [path.join(__dirname, dialect)] }))
require.cache[require.resolve('multicast-dns', { paths: [discovery] })] = { exports: silent, loaded: true }

const nodes = [] // of the DHT
const swarms = []

const once = (emitter, event) => new Promise(resolve => emitter.once(event, resolve))
const call = start => new Promise((resolve, reject) => start((error, value) => (error ? reject(error) : resolve(value))))
const topic = command => Buffer.from(command.topic, 'hex')

const commands = {
  // Start `count` nodes that know `bootstrap`; {ports} once they have found their place.
  async nodes ({ count = 1, bootstrap = [], ephemeral = false }) {
    const first = nodes.length
    for (let i = 0; i < count; i++) {
      const node = load(names[1])({ bootstrap, ephemeral })
      nodes.push(node)
      node.listen(0, HOST)
      await once(node, bootstrap.length ? 'ready' : 'listening')
    }
    return { first, ports: nodes.slice(first).map(node => node.address().port) }
  },
  // What a node knows: {ports} of the nodes in its table.
  async known ({ node }) {
    return { ports: nodes[node].getNodes().map(known => known.port).sort() }
  },
  async lookup (command) {
    const answers = await call(done => nodes[command.node].lookup(topic(command), command.options || {}, done))
    const list = name => [...new Set(answers.flatMap(a => a[name] || []).map(p => `${p.host}:${p.port}`))].sort()
    return { answers: answers.length, peers: list('peers'), local: list('localPeers') }
  },
  async announce (command) {
    await call(done => nodes[command.node].announce(topic(command), command.options, done))
    return {}
  },
  async unannounce (command) {
    await call(done => nodes[command.node].unannounce(topic(command), command.options, done))
    return {}
  },
  async ping ({ node, port }) {
    return { pong: await call(done => nodes[node].ping({ host: HOST, port }, done)) }
  },
  // Reach the node `other` through whoever listens at `referrer`.
  async holepunch ({ node, other, referrer }) {
    const peer = { host: HOST, port: nodes[other].address().port, referrer: { host: HOST, port: referrer } }
    await call(done => nodes[node].holepunch(peer, done))
    return {}
  },
  async close ({ node }) {
    nodes[node].destroy()
    return {}
  },
  // Join a topic with a whole swarm; its connections are counted, and say `hello` on a TCP stream.
  async swarm (command) {
    const swarm = load(names[0])({ bootstrap: command.bootstrap, ephemeral: command.ephemeral, announceLocalAddress: false })
    const state = { swarm, peers: [], connections: 0 }
    swarms.push(state)
    swarm.on('peer', peer => state.peers.push(`${peer.host}:${peer.port}`))
    swarm.on('connection', (socket, info) => {
      state.connections++
      socket.on('error', () => {})
      socket.write('hello')
    })
    await call(done => swarm.listen(0, done))
    swarm.join(topic(command), { announce: command.announce, lookup: command.lookup })
    if (command.flush !== false) await call(done => swarm.flush(done))
    return { swarm: swarms.length - 1, port: swarm.address().port }
  },
  async seen ({ swarm }) {
    return { peers: [...new Set(swarms[swarm].peers)].sort(), connections: swarms[swarm].connections }
  },
  async leave (command) {
    await call(done => swarms[command.swarm].swarm.leave(topic(command), done))
    return {}
  }
}

readline.createInterface({ input: process.stdin }).on('line', async line => {
  const command = JSON.parse(line)
  let answer
  try {
    answer = await commands[command.do](command)
  } catch (error) {
    answer = { error: error.stack || String(error) }
  }
  process.stdout.write(JSON.stringify(answer) + '\n')
}).on('close', () => process.exit(0))
