package c2s

import (
	"context"
	"testing"

	"mellium.im/xmpp/jid"

	"mamlog/xep0313"
	"mamlog/xep0313/stanza"
)

// What a session of a deleted account still archived belongs to nobody who has
// the name later.
func TestRecreatedAccountStartsEmpty(t *testing.T) {
	f := start(t, nil)
	f.account("juliet")
	j := jid.MustParse("juliet@" + testHost)
	if err := f.s.c.Accounts.Delete(context.Background(), j, "test"); err != nil {
		t.Fatal(err)
	}
	done := make(chan xep0313.Delivery, 1)
	err := f.s.c.Archive.Record(xep0313.Message{
		Stanza: stanza.New(stanza.NSClient, "message", "type", "chat").Add(stanza.New(stanza.NSClient, "body").AddText("late")),
		From:   jid.MustParse("romeo@" + testHost + "/r"), To: j, ToLocal: true,
	}, func(d xep0313.Delivery) { done <- d })
	if err != nil {
		t.Fatal(err)
	}
	if d := <-done; d.Err != nil || d.RecipientID == (xep0313.Delivery{}).RecipientID {
		t.Fatalf("%+v", d)
	}
	f.account("juliet")
	rows, q, err := f.s.c.Archive.Archive(j)
	if err != nil {
		t.Fatal(err)
	}
	if page, err := rows.Query(q); err != nil || page.Count != 0 {
		t.Errorf("the new account finds %d messages, %v", page.Count, err)
	}
}
