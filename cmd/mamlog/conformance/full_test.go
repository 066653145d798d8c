package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestFullDisk fills the file system under a running server and frees it again: a
// sender is told meanwhile, archives are read, and what was acknowledged before and
// after is there.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=96m"); err != nil {
		Skip(t, "a small file system can't be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	s, err := NewServer(dir, "disk_reserve: 1MiB\n")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	addUsers(t, s, "juliet", "romeo")
	romeo, err := s.Dial(t.Context(), "romeo", "orchard")
	if err != nil {
		t.Fatal(err)
	}
	defer romeo.Drop()
	juliet, err := s.Dial(t.Context(), "juliet", "balcony")
	if err != nil {
		t.Fatal(err)
	}
	defer juliet.Drop()
	fromRomeo, fromJuliet := messagesOf(romeo), messagesOf(juliet)
	var got []killed
	n := 0
	// exchange sends a message, and returns the error that its sender got; nil if it
	// was delivered.
	exchange := func() *Element {
		t.Helper()
		n++
		if err := romeo.Send(fmt.Sprintf("<message to='%s' type='chat' id='m%d'><body>message %d</body></message>", juliet.Bare, n, n)); err != nil {
			t.Fatal(err)
		}
		select {
		case e, ok := <-fromRomeo:
			if !ok {
				t.Fatal("romeo was told nothing")
			}
			return e
		case e, ok := <-fromJuliet:
			if !ok {
				t.Fatal("nothing arrived")
			}
			id, _ := StanzaID(e, juliet.Bare)
			got = append(got, killed{id, e.Child("body").Content()})
			return nil
		}
	}
	if e := exchange(); e != nil {
		t.Fatalf("on an empty disk the sender is told %s", e)
	}

	// The server may give some space back after it was full: then there is more to fill.
	filler := filepath.Join(dir, "filler")
	var refusal *Element
	for deadline := time.Now().Add(patience); refusal == nil; {
		if time.Now().After(deadline) {
			t.Fatal("messages are taken on a full disk")
		}
		f, err := os.OpenFile(filler, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		for b := make([]byte, 64<<10); err == nil; {
			_, err = f.Write(b)
		}
		f.Close()
		refusal = exchange()
	}
	if refusal.Attr("type") != "error" || !strings.Contains(fmt.Sprint(refusal), "resource-constraint") {
		t.Errorf("on a full disk the sender is told %s", refusal)
	}
	awaitLog(t, s, "THE DISK TAKES NO WRITES")
	checkReceipts(t, s, 0, "juliet", "", got) // queries are answered

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if exchange() == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("messages are not taken though there is space again")
		}
	}
	awaitLog(t, s, "the disk takes writes again")
	checkReceipts(t, s, 1, "juliet", "", got)
}

func awaitLog(t *testing.T, s *Server, words string) {
	t.Helper()
	for deadline := time.Now().Add(patience); !strings.Contains(s.Log(), words); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the server does not say %q", words)
		}
	}
}

// messagesOf reads on, and returns the messages with a body, and the errors. It is
// closed when there is nothing more for long.
func messagesOf(c *Client) <-chan *Element {
	ch := make(chan *Element)
	go func() {
		defer close(ch)
		for {
			e, err := c.Next()
			if err != nil {
				return
			}
			if e.Name.Local == "message" && (e.Child("body").Content() != "" || e.Attr("type") == "error") {
				ch <- e
			}
		}
	}()
	return ch
}
