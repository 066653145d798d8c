package c2s

import (
	"strings"
	"testing"
)

// A client that floods itself and does not read is sent away; the log's
// goroutine, which fills its queue, goes on serving everybody else.
func TestFloodOfOneselfHarmsNobodyElse(t *testing.T) {
	f := start(t, func(c *Config) { c.Limits.QueueBytes = 1 << 20 })
	f.account("mallory", "juliet", "romeo")
	mallory := f.online("mallory", "r")
	juliet, romeo := f.online("juliet", "balcony"), f.online("romeo", "garden")
	big := strings.Repeat("x", 100<<10)
	go func() {
		for range 200 {
			if _, err := mallory.conn.Write([]byte("<message to='" + mallory.full + "' type='chat'><body>" + big + "</body></message>")); err != nil {
				return
			}
		}
	}()
	eventually(t, "the flood is cut off", func() bool { return !f.s.users.has("mallory@"+testHost, "r") })
	romeo.send("<message to='juliet@%s' type='chat'><body>still there?</body></message>", testHost)
	if got := juliet.message("").ChildText("jabber:client", "body"); got != "still there?" {
		t.Errorf("juliet got %q", got)
	}
}
