"""What the slixmpp tests share: a client that logs in and reports.

Everything is reported to the Go test as JSON lines on standard output; whether
it is right is decided there.
"""
import asyncio
import json
import ssl
import sys

import slixmpp

SID = '{urn:xmpp:sid:0}stanza-id'


def report(event, **fields):
    print(json.dumps({'event': event, **fields}), flush=True)


def ids_of(message, owner):
    """The archive ids by the owner's bare JID that a live stanza carries."""
    return [e.get('id') for e in message.xml.findall(SID) if e.get('by') == owner]


class Client(slixmpp.ClientXMPP):
    """Logs in over STARTTLS with whatever mechanism slixmpp likes best."""

    def __init__(self, jid, password, priority=0):
        super().__init__(jid, password)
        self.wanted_priority = priority
        # The certificate is self-signed, on loopback.
        self.ssl_context.check_hostname = False
        self.ssl_context.verify_mode = ssl.CERT_NONE
        for plugin in ('xep_0030', 'xep_0059', 'xep_0199', 'xep_0280', 'xep_0313', 'xep_0359', 'xep_0441'):
            self.register_plugin(plugin)
        self.ready = self.loop.create_future()
        self.add_event_handler('session_start', self.started)
        for failure in ('failed_all_auth', 'connection_failed', 'disconnected'):
            self.add_event_handler(failure, self.failed(failure))

    def failed(self, what):
        def handler(reason=None):
            if not self.ready.done():
                self.ready.set_exception(RuntimeError('%s: %s' % (what, reason)))
        return handler

    async def started(self, _event):
        self.send_presence(ppriority=self.wanted_priority)
        await self.get_roster()
        await self['xep_0280'].enable()
        if not self.ready.done():
            self.ready.set_result(None)

    async def login(self, host, port):
        self.connect((host, port), force_starttls=True)
        await self.ready
        report('login', client=self.boundjid.full, tls=self.socket is not None and
               self.transport.get_extra_info('sslcontext') is not None)


async def walk_forwards(client, page, **filters):
    """All of the own archive, by slixmpp's own iterator."""
    items = []
    async for message in client['xep_0313'].iterate(rsm={'max': page}, **filters):
        items.append(item(message))
    return items


async def walk_backwards(client, page, **filters):
    """All of the own archive from its end, oldest first in the result.

    slixmpp 1.8.3's iterator stops after its first page backwards where the
    server gives count and index: it takes first + items == count for the end,
    and going backwards that holds at once. So it is told not to stop until the
    server says complete; everything else is its own.
    """
    pages = client['xep_0313'].retrieve(iterator=True, reverse=True, rsm={'max': page}, **filters)
    items = []
    while True:
        answer = await pages.next()
        pages._stop = False
        items = [item(m) for m in answer['mam']['results']] + items
        if answer['mam_fin'].xml.get('complete') == 'true':
            return items


def item(result):
    message = result['mam_result']['forwarded']['stanza']
    return [result['mam_result']['id'], message['body']]


def run(main):
    """Runs main on slixmpp's loop and fails loudly, never silently."""
    loop = asyncio.get_event_loop()
    try:
        loop.run_until_complete(main())
    except Exception as e:  # the Go test shows this
        print('%s: %s' % (type(e).__name__, e), file=sys.stderr)
        raise
    report('done')
    sys.stdout.flush()
