package integrations

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"mamlog/cmd/mamlog/conformance"
)

// TestRoomOrder: messages that clients, a client of another server and a
// component send into a room at once arrive in one order everywhere, under the
// ids and in the order of the room's archive.
func TestRoomOrder(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		s, far := sharedSite(t, k), far(t)
		juliet, romeo, eve := s.newcomer(t, "juliet", "balcony"), s.newcomer(t, "romeo", "orchard"), stranger(t, far, "eve")
		room := userOf(juliet) + "@" + s.RoomsHost
		bot, err := conformance.DialComponent(t.Context(), s.ComponentAddr, botDomain(k, "occupant"), botSecret)
		if err != nil {
			t.Fatal(err)
		}
		defer bot.Close()
		if err := juliet.NewRoom(room, "juliet"); err != nil {
			t.Fatal(err)
		}
		occupants := map[string]*conformance.Client{"juliet": juliet, "romeo": romeo, "eve": eve, "bot": bot}
		for nick, c := range occupants {
			if nick == "juliet" {
				continue
			}
			if _, err := c.Join(room, nick, conformance.JoinOptions{}); err != nil {
				t.Fatal(err)
			}
		}

		const each = 20
		for nick, c := range occupants {
			go func() {
				for i := range each {
					from := ""
					if c == bot {
						from = " from='" + bot.JID + "'"
					}
					// A failure shows as a message that is missing below.
					_ = c.Send(fmt.Sprintf("<message%s to='%s' type='groupchat' id='%s%d'><body>%s %d</body></message>", from, room, nick, i, nick, i))
				}
			}()
		}
		got := map[string][]received{}
		var mu sync.Mutex
		var wg sync.WaitGroup
		for nick, c := range occupants {
			wg.Go(func() {
				all := receive(t, c, room, each*len(occupants))
				mu.Lock()
				defer mu.Unlock()
				got[nick] = all
			})
		}
		wg.Wait()
		archive := archiveOf(t, juliet, room)
		for nick := range occupants {
			checkStamped(t, "as "+nick+" saw it", got[nick], archive)
			if sent := withName(bodies(archive), nick); !slices.Equal(sent, numbered(nick, each)) {
				t.Errorf("of %s are archived: %q", nick, sent)
			}
		}
	})
}

// withName are the bodies that numbered made with a name.
func withName(all []string, name string) (some []string) {
	for _, b := range all {
		if strings.HasPrefix(b, name+" ") {
			some = append(some, b)
		}
	}
	return some
}
