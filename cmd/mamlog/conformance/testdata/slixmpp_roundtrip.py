"""slixmpp: two clients talk, juliet sets preferences and pages through it all.

Usage: slixmpp_roundtrip.py HOST PORT DOMAIN JULIET ROMEO PASSWORD COUNT
"""
import asyncio
import sys

import slixmpp_session as session
from slixmpp_session import Client, report


async def main():
    host, port, domain, juliet_name, romeo_name, password, count = sys.argv[1:]
    count = int(count)
    juliet = Client('%s@%s/balcony' % (juliet_name, domain), password)
    romeo = Client('%s@%s/orchard' % (romeo_name, domain), password)

    got = []
    arrived = asyncio.Event()

    def on_message(message):
        if message['type'] != 'chat':
            return
        got.append(message)
        report('live', client='juliet', ids=session.ids_of(message, juliet.boundjid.bare), body=message['body'])
        if len(got) == count:
            arrived.set()

    juliet.add_event_handler('message', on_message)
    await juliet.login(host, int(port))
    await romeo.login(host, int(port))

    info = await juliet['xep_0030'].get_info(jid=juliet.boundjid.bare)
    report('features', features=sorted(info['disco_info']['features']))
    form = await juliet['xep_0313'].get_fields()
    report('fields', fields=sorted(form.get_fields().keys()))

    for i in range(1, count + 1):
        romeo.send_message(mto=juliet.boundjid.bare, mbody='message %d' % i, mtype='chat')
    await arrived.wait()

    report('walk', client='juliet', direction='forwards', items=await session.walk_forwards(juliet, 50))
    report('walk', client='juliet', direction='backwards', items=await session.walk_backwards(juliet, 50))
    report('walk', client='juliet', direction='with', items=await session.walk_forwards(
        juliet, 37, with_jid=romeo.boundjid.bare))
    report('walk', client='romeo', direction='forwards', items=await session.walk_forwards(romeo, 50))
    metadata = (await juliet['xep_0313'].get_archive_metadata())['mam_metadata']
    report('metadata', start=metadata['start']['id'], end=metadata['end']['id'])

    async def prefs():
        default, always, never = await juliet['xep_0441'].get_preferences()
        report('prefs', default=default, always=sorted(map(str, always)), never=sorted(map(str, never)))

    await prefs()
    await juliet['xep_0441'].set_preferences(
        default='roster', always=[romeo.boundjid.bare], never=['tybalt@' + domain])
    await prefs()
    await juliet['xep_0441'].set_preferences(default='never', always=[], never=[])
    await prefs()

    juliet.disconnect()
    romeo.disconnect()


session.run(main)
