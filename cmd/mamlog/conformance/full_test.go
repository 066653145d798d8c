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
		t.Skip("a small file system can't be mounted here: ", err)
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
	n := 0
	send := func() {
		t.Helper()
		n++
		if err := romeo.Send(fmt.Sprintf("<message to='%s' type='chat' id='m%d'><body>message %d</body></message>", juliet.Bare, n, n)); err != nil {
			t.Fatal(err)
		}
	}
	message := func(c *Client) *Element {
		t.Helper()
		for {
			e, err := c.Next()
			if err != nil {
				t.Fatal(err)
			}
			if e.Name.Local == "message" && e.Child("body").Content() != "" || e.Attr("type") == "error" {
				return e
			}
		}
	}
	var got []killed
	receive := func() {
		t.Helper()
		e := message(juliet)
		id, _ := StanzaID(e, juliet.Bare)
		got = append(got, killed{id, e.Child("body").Content()})
	}
	send()
	receive()

	filler := filepath.Join(dir, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	for b := make([]byte, 64<<10); err == nil; {
		_, err = f.Write(b)
	}
	f.Close()
	for deadline := time.Now().Add(patience); !strings.Contains(s.Log(), "THE DISK TAKES NO WRITES"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the server does not notice that the disk is full")
		}
	}
	send()
	if e := message(romeo); e.Attr("type") != "error" || !strings.Contains(fmt.Sprint(e), "resource-constraint") {
		t.Errorf("on a full disk the sender is told %s", e)
	}
	checkReceipts(t, s, 0, "juliet", "", got) // queries are answered

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); !strings.Contains(s.Log(), "the disk takes writes again"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the server does not notice that there is space again")
		}
	}
	send()
	receive()
	checkReceipts(t, s, 1, "juliet", "", got)
}
