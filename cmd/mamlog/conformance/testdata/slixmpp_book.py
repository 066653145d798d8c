"""slixmpp: a conversation out of a book, then both archives page by page.

Each reads in turn: whoever has the word sends a run of lines and waits until
the other has them all, so that the order of the whole conversation is known.
Each also has a second resource of negative priority with carbons, which shows
the archive ids of what the first one sent.

Usage: slixmpp_book.py HOST PORT DOMAIN JULIET ROMEO PASSWORD LINES.json
where LINES.json is [["who", "line"], ...], who being juliet or romeo.
"""
import asyncio
import itertools
import json
import sys

import slixmpp_session as session
from slixmpp_session import Client, report


class Reader:
    """One of the two, with both resources."""

    def __init__(self, name, account, domain, password, at):
        self.name = name
        self.main = Client('%s@%s/%s' % (account, domain, at), password)
        self.second = Client('%s@%s/second' % (account, domain), password, priority=-1)
        self.main.add_event_handler('message', self.on_message)
        self.second.add_event_handler('carbon_sent', self.on_carbon)
        self.received = 0
        self.copied = 0
        self.changed = asyncio.Event()

    async def login(self, host, port):
        await self.main.login(host, port)
        await self.second.login(host, port)
        self.bare = self.main.boundjid.bare

    def on_message(self, message):
        if message['type'] == 'chat':
            self.received += 1
            self.tell('received', message)

    def on_carbon(self, message):
        self.copied += 1
        self.tell('sent', message['carbon_sent'])

    def tell(self, kind, message):
        report('live', client=self.name, kind=kind, ids=session.ids_of(message, self.bare), body=message['body'])
        self.changed.set()

    async def wait(self, received, copied):
        while self.received < received or self.copied < copied:
            self.changed.clear()
            await self.changed.wait()


async def main():
    host, port, domain, juliet_account, romeo_account, password, path = sys.argv[1:]
    with open(path, encoding='utf-8') as f:
        lines = json.load(f)
    readers = {
        'juliet': Reader('juliet', juliet_account, domain, password, 'balcony'),
        'romeo': Reader('romeo', romeo_account, domain, password, 'orchard'),
    }
    for r in readers.values():
        await r.login(host, int(port))
    sent = {'juliet': 0, 'romeo': 0}
    for who, turn in itertools.groupby(lines, key=lambda l: l[0]):
        other = 'romeo' if who == 'juliet' else 'juliet'
        for _, line in turn:
            readers[who].main.send_message(mto=readers[other].bare, mbody=line, mtype='chat')
            sent[who] += 1
        await readers[other].wait(received=sent[who], copied=0)
    for name, r in readers.items():
        await r.wait(received=0, copied=sent[name])
    for name, r in readers.items():
        report('walk', client=name, direction='forwards', items=await session.walk_forwards(r.main, 50))
        report('walk', client=name, direction='backwards', items=await session.walk_backwards(r.main, 50))
    for r in readers.values():
        r.main.disconnect()
        r.second.disconnect()


session.run(main)
