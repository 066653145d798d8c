package c2s

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"mamlog/xep0313/stanza"
)

type webClient struct {
	t *testing.T
	c *websocket.Conn
}

func (w *webClient) send(b string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := w.c.Write(ctx, websocket.MessageText, []byte(b)); err != nil {
		w.t.Fatal(err)
	}
}

// next reads a message, which has to be one whole element.
func (w *webClient) next() *stanza.Element {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, b, err := w.c.Read(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	e, err := stanza.Parse(b)
	if err != nil {
		w.t.Fatalf("%s: %v", b, err)
	}
	return e
}

const wsOpen = "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='test.example' version='1.0'/>"

func (w *webClient) open() {
	w.t.Helper()
	w.send(wsOpen)
	if e := w.next(); !e.Is(nsFraming, "open") || e.Attr("from") != testHost {
		w.t.Fatalf("open: %s", e.Bytes())
	}
	if e := w.next(); !e.Is(nsStream, "features") {
		w.t.Fatalf("features: %s", e.Bytes())
	}
}

func dialWeb(t *testing.T, url string) *webClient {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{
		Subprotocols: []string{"xmpp"}, HTTPClient: client,
		HTTPHeader: http.Header{"Origin": {"https://elsewhere.example"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.CloseNow() })
	return &webClient{t, c}
}

func (w *webClient) login(user string) string {
	w.t.Helper()
	w.open()
	w.send("<auth xmlns='" + nsSASL + "' mechanism='PLAIN'>" + plainData(user, "secret-"+user) + "</auth>")
	if e := w.next(); !e.Is(nsSASL, "success") {
		w.t.Fatalf("login: %s", e.Bytes())
	}
	w.open()
	w.send("<iq xmlns='jabber:client' type='set' id='b'><bind xmlns='" + nsBind + "'><resource>web</resource></bind></iq>")
	return w.next().Child(nsBind, "bind").ChildText(nsBind, "jid")
}

func TestWebSocket(t *testing.T) {
	for _, scheme := range []string{"ws", "wss"} {
		t.Run(scheme, func(t *testing.T) {
			f := start(t, func(c *Config) {
				c.WebSocketListen, c.AllowPlaintext = "127.0.0.1:0", scheme == "ws"
			})
			f.account("juliet", "romeo")
			url := scheme + "://" + f.s.WebSocketAddr().String() + "/xmpp-websocket"
			w := dialWeb(t, url)
			if full := w.login("juliet"); full != "juliet@test.example/web" {
				t.Fatalf("bound %q", full)
			}
			w.send("<presence xmlns='jabber:client'/>")
			w.next()
			romeo := f.dial()
			romeo.t = t
			if scheme == "wss" {
				romeo.open()
				romeo.startTLS()
			}
			romeo.login("romeo", "garden")
			for _, id := range []string{"1", "2", "3"} {
				romeo.send("<message id='%s' to='juliet@test.example' type='chat'><body>x</body></message>", id)
			}
			for _, id := range []string{"1", "2", "3"} {
				if e := w.next(); e.Attr("id") != id || stanzaIDs(e)["juliet@test.example"] == "" {
					t.Errorf("got %s", e.Bytes())
				}
			}
			w.send("<message xmlns='jabber:client' id='back' to='" + romeo.full + "' type='chat'><body>x</body></message>")
			romeo.message("back")

			w.send("<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>")
			if e := w.next(); !e.Is(nsFraming, "close") {
				t.Errorf("close: %s", e.Bytes())
			}
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if _, _, err := w.c.Read(ctx); websocket.CloseStatus(err) != websocket.StatusNormalClosure {
				t.Errorf("after close: %v", err)
			}
			eventually(t, "the session to be gone", func() bool { return !f.s.users.online("juliet@test.example") })

			for _, tt := range []struct{ send, want string }{
				{"<message xmlns='jabber:client'/><message xmlns='jabber:client'/>", "bad-format"},
				{"<message xmlns='jabber:client' from='x@y'/>", "invalid-from"},
				{"<message", "not-well-formed"},
			} {
				w := dialWeb(t, url)
				w.login("juliet")
				w.send(tt.send)
				if e := w.next(); !e.Is(nsStream, "error") || e.Child(nsStreams, tt.want) == nil {
					t.Errorf("%s: %s, want %s", tt.send, e.Bytes(), tt.want)
				}
				if e := w.next(); !e.Is(nsFraming, "close") {
					t.Errorf("close: %s", e.Bytes())
				}
			}
			unknown := dialWeb(t, url)
			unknown.send(strings.Replace(wsOpen, testHost, "other.example", 1))
			unknown.next()
			if e := unknown.next(); e.Child(nsStreams, "host-unknown") == nil {
				t.Errorf("unknown host: %s", e.Bytes())
			}

			// Shutdown reaches it too.
			last := dialWeb(t, url)
			last.login("juliet")
			started := time.Now()
			f.stop()
			if e := last.next(); e.Child(nsStreams, "system-shutdown") == nil {
				t.Errorf("shutdown: %s", e.Bytes())
			}
			last.next()
			last.c.Close(websocket.StatusNormalClosure, "")
			if d := time.Since(started); d > 4*time.Second {
				t.Errorf("closing took %v", d)
			}
		})
	}
}

func TestHostMeta(t *testing.T) {
	f := start(t, func(c *Config) { c.WebSocketListen = "127.0.0.1:0" })
	at := f.s.WebSocketAddr().String()
	for _, file := range []string{"host-meta", "host-meta.json"} {
		r, err := http.Get("http://" + at + "/.well-known/" + file)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || !strings.Contains(string(b), "ws://"+at+"/xmpp-websocket") {
			t.Errorf("%s: %s, %v", file, b, err)
		}
	}
}
