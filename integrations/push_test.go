package integrations

import (
	"testing"

	"mamlog/cmd/mamlog/conformance"
)

// TestPush: a phone that is away hears of what is archived while another device of
// its owner is here (XEP-0357). Servers only know by what the archive's module says.
func TestPush(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		s := sharedSite(t, k)
		service, err := conformance.DialComponent(t.Context(), s.ComponentAddr, botDomain(k, "notifier"), botSecret)
		if err != nil {
			t.Fatal(err)
		}
		defer service.Close()
		phone, romeo := s.newcomer(t, "juliet", "phone"), s.newcomer(t, "romeo", "orchard")
		enabled, err := phone.Call("set", "<enable xmlns='urn:xmpp:push:0' jid='"+botDomain(k, "notifier")+"' node='a phone'/>")
		if err != nil || enabled.Attr("type") != "result" {
			t.Fatal(enabled, err)
		}
		desk := s.login(t, userOf(phone), "desk")
		send(t, phone, "</stream:stream>")
		for err == nil { // its session is over before its connection is
			_, err = phone.Next()
		}

		send(t, romeo, chat(desk.Bare, "knock", 1))
		checkStamped(t, "at the desk", receive(t, desk, desk.Bare, 1), archiveOf(t, desk, ""))
		for {
			e, err := service.Next()
			if err != nil {
				t.Fatalf("nobody tells the phone: %v", err)
			}
			if publish := e.Child("{http://jabber.org/protocol/pubsub}pubsub", "publish"); publish != nil {
				if got := publish.Attr("node"); got != "a phone" {
					t.Errorf("told is %q: %s", got, e)
				}
				return
			}
		}
	})
}
