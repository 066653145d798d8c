package xep0313

import (
	"strings"
	"testing"

	"mamlog/xep0313/stanza"
)

// In a room the sender, known by their real JID, and the room itself on behalf of a
// moderator make a message a tombstone; nobody else does, under no nickname.
func TestRetractionInARoom(t *testing.T) {
	f := newFixture(t, DefaultOptions(), nil)
	post := func(occupant, sender, xml string) string {
		s := f.roomXML(occupant, xml)
		if sender != "" {
			s.Sender = jidOf(sender)
		}
		return f.one(s).ID.String()
	}
	retract := func(id, more string) string {
		return "<message type='groupchat' id='r'><retract xmlns='urn:xmpp:message-retract:1' id='" + id + "'>" + more + "</retract></message>"
	}
	content := func(id string) string {
		for _, r := range f.askRoom(verona, juliet, RealJIDsAll, "set", queryXML(nil, "")) {
			if r.First().Attr("id") == id {
				return string(r.First().First().Child(stanza.NSClient, "message").Bytes())
			}
		}
		t.Fatalf("the room has no message %s", id)
		return ""
	}
	const nurse = "nurse@test.example/x"
	id := post(verona+"/nurse", nurse, "<message type='groupchat' id='m'><body>secret</body></message>")
	post(verona+"/romeo", "romeo@test.example/y", retract(id, ""))
	post(verona+"/nurse", "romeo@test.example/y", retract(id, "")) // who has taken the nickname
	post(verona+"/romeo", "romeo@test.example/y", retract(id, "<moderated xmlns='urn:xmpp:message-moderate:1'/>"))
	if got := content(id); !strings.Contains(got, "secret") {
		t.Fatalf("somebody else retracted it: %s", got)
	}
	post(verona+"/nurse", nurse, retract(id, ""))
	if got := content(id); strings.Contains(got, "secret") || !strings.Contains(got, "<retracted") {
		t.Errorf("retracted by its sender, it is %s", got)
	}
	id = post(verona+"/nurse", nurse, "<message type='groupchat' id='m'><body>secret</body></message>")
	post(verona, "", retract(id, "<moderated xmlns='urn:xmpp:message-moderate:1'/>"))
	if got := content(id); strings.Contains(got, "secret") || !strings.Contains(got, "<moderated") {
		t.Errorf("retracted by a moderator, it is %s", got)
	}
}
