package browser

import (
	"bytes"
	"context"
	"fmt"
	"image/png"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

// patience bounds every wait for something that must happen. It is generous
// because a loaded machine is no reason to fail.
const patience = time.Minute

// The window, in CSS pixels; the screenshot is as large.
const width, height = 1100, 800

// person sits at a browser with Converse.js in its one tab.
type person struct {
	t    *testing.T
	ctx  context.Context // of the tab
	site string
	dir  string // for pictures
	traffic

	mu      sync.Mutex // guards console
	console []chromedp.ConsoleMessage
}

// openBrowser starts Chromium, without a page yet. It ends with the test, and a
// test that fails has a last screenshot among its artifacts.
func openBrowser(t *testing.T, site string) *person {
	t.Helper()
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath("chromium"),
		chromedp.NoSandbox, // neither root nor containers have one, and the page is ours
		chromedp.WindowSize(width, height),
		chromedp.Env("TZ=UTC"),
		// Names are not looked up, so nothing but loopback can be reached.
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
	}
	p := &person{t: t, site: site, dir: t.ArtifactDir()}
	// Not t.Context, which is done when cleanup begins.
	ctx, _ := chromedp.NewContext(context.Background(), chromedp.WithAllocatorOptions(options...), chromedp.WithErrorf(t.Logf))
	p.ctx = ctx
	t.Cleanup(func() {
		if t.Failed() {
			p.screenshot()
		}
		if err := chromedp.Cancel(ctx); err != nil {
			t.Errorf("ending Chromium: %v", err)
		}
	})
	// Without a deadline: the browser lives as long as the context that starts it.
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	p.do(chromedp.EmulateViewport(width, height))
	if err := chromedp.Listen(ctx, p.listen); err != nil {
		t.Fatal(err)
	}
	messages := chromedp.Console(ctx)
	go func() {
		for m, err := range messages {
			if err != nil {
				return
			}
			p.mu.Lock()
			p.console = append(p.console, m)
			p.mu.Unlock()
		}
	}()
	p.do(func(ctx context.Context, _ *chromedp.Target) (chromedp.Void, error) {
		_, err := chromedp.Call(ctx, network.Enable, network.EnableParams{})
		return chromedp.Void{}, err
	})
	return p
}

func (p *person) listen(event any) {
	switch e := event.(type) {
	case *network.EventWebSocketFrameSent:
		p.sent(string(e.Response.PayloadData))
	case *network.EventWebSocketFrameReceived:
		p.received(string(e.Response.PayloadData))
	}
}

// do runs actions, which wait for the elements that they name.
func (p *person) do(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	if err := p.try(actions...); err != nil {
		p.t.Fatal(err)
	}
}

func (p *person) try(actions ...chromedp.Action[chromedp.Void]) error {
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	return chromedp.Do(ctx, actions...)
}

// logIn opens the page and fills in its form.
func (p *person) logIn(webSocket, jid, password string) {
	p.t.Helper()
	p.do(
		chromedp.Navigate(p.site+"/?websocket="+url.QueryEscape(webSocket)),
		chromedp.SendKeys(chromedp.CSS("#converse-login input[name=jid]"), jid),
		chromedp.SendKeys(chromedp.CSS("#converse-login input[name=password]"), password),
		chromedp.Click(chromedp.CSS("#converse-login button[type=submit]")),
	)
}

// openChat clicks on a contact until the conversation is there: the list moves
// when messages come in, and a click may miss.
func (p *person) openChat(contact string) {
	p.t.Helper()
	open := chromedp.Evaluate[bool](fmt.Sprintf(`document.querySelector("converse-chat[jid='%s']") !== null`, contact))
	p.await("the conversation", func() string {
		is, err := chromedp.Run(p.ctx, open)
		if err == nil && !is {
			err = p.try(chromedp.Click(chromedp.CSS(fmt.Sprintf(".open-chat[data-jid='%s']", contact))))
			if err == nil {
				return "it does not open at a click"
			}
		}
		if err != nil {
			return err.Error()
		}
		return ""
	})
}

// texts are the messages in the page, from the top to the bottom.
func (p *person) texts() []string {
	p.t.Helper()
	texts, err := chromedp.Run(p.ctx, chromedp.Evaluate[[]string](
		`Array.from(document.querySelectorAll("converse-chat .chat-msg__text"), e => e.textContent.trim())`))
	if err != nil {
		p.t.Fatal(err)
	}
	return texts
}

// firstInView says whether all of the uppermost message is within the part of
// the conversation that the window shows.
func (p *person) firstInView() bool {
	p.t.Helper()
	in, err := chromedp.Run(p.ctx, chromedp.Evaluate[bool](`(() => {
		const message = document.querySelector("converse-chat .chat-msg__text").getBoundingClientRect();
		const pane = document.querySelector("converse-chat .chat-content__messages").getBoundingClientRect();
		return message.height > 0 && message.top >= pane.top && message.bottom <= pane.bottom;
	})()`))
	if err != nil {
		p.t.Fatal(err)
	}
	return in
}

// wheel is input.DispatchMouseEvent for those who turn the wheel straight: its
// own parameters leave out a deltaX of 0, which Chromium demands.
var wheel = cdp.Command[wheelParams, cdp.Empty]{Method: input.CommandDispatchMouseEvent}

type wheelParams struct {
	Type   input.DispatchMouseEventType `json:"type"`
	X      float64                      `json:"x"`
	Y      float64                      `json:"y"`
	DeltaX float64                      `json:"deltaX"`
	DeltaY float64                      `json:"deltaY"`
}

// scrollUp turns the mouse wheel in the middle of the conversation.
func (p *person) scrollUp() {
	p.t.Helper()
	p.do(func(ctx context.Context, _ *chromedp.Target) (chromedp.Void, error) {
		_, err := chromedp.Call(ctx, wheel, wheelParams{Type: chromedp.MouseWheel, X: width * 2 / 3, Y: height / 2, DeltaY: -height})
		return chromedp.Void{}, err
	})
}

// await looks until done returns "", and fails with its last word otherwise.
func (p *person) await(what string, done func() string) {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		missing := done()
		if missing == "" {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("waiting for %s: %s", what, missing)
		}
		time.Sleep(20 * time.Millisecond) // until the next look
	}
}

// screenshot writes a picture of the window among the test's artifacts and
// returns it.
func (p *person) screenshot() []byte {
	p.t.Helper()
	picture, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.t.Errorf("screenshot: %v", err)
		return nil
	}
	if c, err := png.DecodeConfig(bytes.NewReader(picture)); err != nil || c.Width != width || c.Height != height {
		p.t.Errorf("the screenshot is %d by %d pixels: %v", c.Width, c.Height, err)
	}
	if err := os.WriteFile(filepath.Join(p.dir, "converse.png"), picture, 0o644); err != nil {
		p.t.Error(err)
	}
	return picture
}

// complaints are the errors and warnings on the console, but for those that do
// not concern archives.
func (p *person) complaints() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []string
	for _, m := range p.console {
		switch {
		case m.Type != chromedp.ConsoleError && m.Type != chromedp.ConsoleWarning && !m.IsException():
		case m.Source == "network" && !strings.HasPrefix(m.URL, p.site):
			// The login page's pictures of sponsors, which are elsewhere.
		case strings.Contains(strings.ToLower(m.Text), "pubsub"):
			// Where there is no XEP-0163, her favourite reactions can't be had.
		default:
			out = append(out, fmt.Sprintf("%s (%s)", m, m.URL))
		}
	}
	return out
}
