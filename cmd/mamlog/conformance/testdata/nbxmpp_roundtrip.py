"""nbxmpp: two clients talk, juliet sets preferences and pages through it all.

Usage: nbxmpp_roundtrip.py HOST PORT DOMAIN JULIET ROMEO PASSWORD COUNT
Reports as JSON lines on standard output, which the Go test judges.
"""
import json
import sys

from gi.repository import GLib
from nbxmpp.client import Client
from nbxmpp.const import ConnectionProtocol, ConnectionType
from nbxmpp.modules import mam
from nbxmpp.modules.rsm import parse_rsm
from nbxmpp.namespaces import Namespace
from nbxmpp.protocol import Iq, JID, Message, Presence
from nbxmpp.structs import StanzaHandler

PAGE = 50


def report(event, **fields):
    print(json.dumps({'event': event, **fields}), flush=True)


class Peer:
    """One client on the shared main loop."""

    def __init__(self, script, name, account, domain, resource, password, host, port):
        self.script, self.name = script, name
        self.bare = '%s@%s' % (account, domain)
        self.results = {}  # queryid to what arrived for it
        c = self.client = Client(log_context=name)
        c.set_domain(domain)
        c.set_username(account)
        c.set_resource(resource)
        c.set_password(password)
        c.set_custom_host('%s:%s' % (host, port), ConnectionProtocol.TCP, ConnectionType.START_TLS)
        c.set_ignore_tls_errors(True)  # self-signed, on loopback
        c.subscribe('connected', self.on_connected)
        c.subscribe('connection-failed', self.on_failed)
        c.subscribe('disconnected', self.on_disconnected)
        c.register_handler(StanzaHandler(name='message', callback=self.on_message, priority=90))

    def on_connected(self, *_):
        report('login', client=str(self.client.get_bound_jid()), tls=str(self.client.tls_version))
        self.client.send_stanza(Presence())
        self.script.step()

    def on_failed(self, *_):
        self.script.fail('%s: connection failed: %s' % (self.name, self.client.get_error()))

    def on_disconnected(self, *_):
        self.script.gone(self)

    def on_message(self, _client, _stanza, properties):
        if properties.is_mam_message:
            self.results.setdefault(properties.mam.query_id, []).append([properties.mam.id, properties.body])
        elif properties.type.is_chat:
            ids = [s.id for s in properties.stanza_ids if s.by == self.bare]
            report('live', client=self.name, ids=ids, body=properties.body)
            self.script.live()


class Script:
    """What happens, in order: each callback leads to the next step."""

    def __init__(self, host, port, domain, juliet, romeo, password, count):
        self.loop = GLib.MainLoop()
        self.error = None
        self.count, self.domain = int(count), domain
        self.arrived = 0
        self.kept = []
        self.peers = []
        self.juliet = Peer(self, 'juliet', juliet, domain, 'balcony', password, host, port)
        self.romeo = Peer(self, 'romeo', romeo, domain, 'orchard', password, host, port)
        self.steps = iter((
            self.romeo.client.connect,
            self.talk,
            lambda: self.forwards('juliet', self.juliet),
            lambda: self.backwards(),
            lambda: self.forwards('romeo', self.romeo),
            self.get_prefs,
            lambda: self.set_prefs('roster', [self.romeo.bare], ['tybalt@' + domain]),
            self.get_prefs,
            lambda: self.set_prefs('never', [], []),
            self.get_prefs,
            self.quit,
        ))

    def run(self):
        self.juliet.client.connect()
        self.loop.run()
        if self.error:
            sys.exit(self.error)
        report('done')

    def step(self):
        """Goes on, from the main loop and not from within a callback."""
        GLib.idle_add(lambda: next(self.steps)() and False)

    def fail(self, why):
        self.error = why
        self.loop.quit()

    def keep(self, callback):
        """nbxmpp's tasks hold their callbacks weakly: a closure would be gone."""
        self.kept.append(callback)
        return callback

    def finish(self, task):
        try:
            return task.finish()
        except Exception as e:
            self.fail('%s: %s' % (type(e).__name__, e))
            raise

    # Talking

    def talk(self):
        for i in range(1, self.count + 1):
            self.romeo.client.send_stanza(Message(to=self.juliet.bare, body='message %d' % i, typ='chat'))

    def live(self):
        self.arrived += 1
        if self.arrived == self.count:
            self.step()

    # Paging, forwards with nbxmpp's own query task

    def forwards(self, name, peer):
        items = []

        def page(after):
            queryid = 'f%d' % len(items)
            peer.client.get_module('MAM').make_query(
                JID.from_string(peer.bare), queryid=queryid, after=after, max_=PAGE,
                callback=self.keep(lambda task: paged(queryid, task)))

        def paged(queryid, task):
            data = self.finish(task)
            items.extend(peer.results.pop(queryid, []))
            if not data.complete:
                page(data.rsm.last)
                return
            report('walk', client=name, direction='forwards', items=items, count=data.rsm.count)
            self.step()

        page(None)

    # Backwards. make_query of nbxmpp 4.2.2 has no RSM before, so its own
    # request is built by its own code and given the element it lacks; results
    # and RSM set are still parsed by nbxmpp.

    def backwards(self):
        items = []

        def page(before):
            queryid = 'b%d' % len(items)
            iq = mam._make_request(JID.from_string(self.juliet.bare), queryid, None, None, None, None, PAGE)
            iq.getQuery().getTag('set').setTagData('before', before)
            self.juliet.client.send_stanza(iq, callback=lambda _client, answer: paged(queryid, answer))

        def paged(queryid, answer):
            fin = answer.getTag('fin', namespace=Namespace.MAM_2)
            if fin is None:
                self.fail('no fin: %s' % answer)
                return
            items[:0] = self.juliet.results.pop(queryid, [])
            if fin.getAttr('complete') != 'true':
                page(parse_rsm(fin).first)
                return
            report('walk', client='juliet', direction='backwards', items=items)
            self.step()

        page('')

    # Preferences

    def get_prefs(self):
        # nbxmpp 4.2.2's request_preferences builds <iq><prefs/></iq> by way of
        # Iq.setQuery and is used as it is.
        def got(task):
            prefs = self.finish(task)
            report('prefs', default=prefs.default, always=sorted(map(str, prefs.always)),
                   never=sorted(map(str, prefs.never)))
            self.step()

        self.juliet.client.get_module('MAM').request_preferences(callback=self.keep(got))

    def set_prefs(self, default, always, never):
        def done(task):
            self.finish(task)
            self.step()

        self.juliet.client.get_module('MAM').set_preferences(
            default, always, never, callback=self.keep(done))

    # The end

    def quit(self):
        self.juliet.client.disconnect()
        self.romeo.client.disconnect()

    def gone(self, peer):
        self.peers.append(peer)
        if len(self.peers) == 2:
            self.loop.quit()
        elif peer.client.has_error and peer.client.get_error()[1] != 'stream-end':
            self.fail('%s: disconnected: %s' % (peer.name, peer.client.get_error()))


if __name__ == '__main__':
    Script(*sys.argv[1:]).run()
