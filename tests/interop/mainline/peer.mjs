// Nodes of the Mainline DHT (npm bittorrent-dht) on 127.0.0.1, told what to do by JSON lines.
import readline from 'node:readline'
import DHT from 'bittorrent-dht'

const nodes = []
const call = start => new Promise((resolve, reject) => start(error => (error ? reject(error) : resolve())))

const commands = {
  // Start a node that knows `bootstrap` (host:port), or nobody; {node, port}.
  async node ({ bootstrap }) {
    const dht = new DHT({ bootstrap: bootstrap.length ? bootstrap : false })
    const found = new Set()
    dht.on('peer', peer => found.add(`${peer.host}:${peer.port}`))
    nodes.push({ dht, found })
    await new Promise(resolve => dht.listen(0, '127.0.0.1', resolve))
    return { node: nodes.length - 1, port: dht.address().port }
  },
  async announce ({ node, topic, port }) {
    await call(done => nodes[node].dht.announce(topic, port, done))
    return {}
  },
  // Ask all that are near; {peers} found so far.
  async lookup ({ node, topic }) {
    await call(done => nodes[node].dht.lookup(topic, done))
    return { peers: [...nodes[node].found].sort() }
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
