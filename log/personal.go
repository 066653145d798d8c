package log

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/oklog/ulid/v2"
	"google.golang.org/protobuf/proto"
)

// Records of the class Audit are never changed nor deleted: who accounts for them
// may hash them as they are stored. What in them is somebody's personal content
// lies apart, at a personal key:
//
//	salt 16 bytes | the whole event (protobuf)
//
// The record has the SHA-256 of that instead. Erasing deletes the personal key:
// the record stays as it is, with the fact, its time and its actor, and nobody
// can find out by guessing what was in it.

func personalKey(id ulid.ULID) []byte { return append([]byte{kindPersonal}, id[:]...) }

// detach returns what of an audit event stays for ever, and what can be erased;
// personal is nil if all of it stays.
func detach(e *Event) (public *Event, personal []byte, err error) {
	public = WithoutPersonal(e)
	if public == e {
		return e, nil, nil
	}
	personal = make([]byte, 16, 16+proto.Size(e))
	rand.Read(personal) // which never fails
	if personal, err = (proto.MarshalOptions{}).MarshalAppend(personal, e); err != nil {
		return nil, nil, err
	}
	sum := sha256.Sum256(personal)
	public.PersonalHash = sum[:]
	return public, personal, nil
}

// WithoutPersonal is what is left of an audit event when what can be erased of it
// is: the lists of preferences go, roster items, and credentials. It is e itself
// where there is nothing.
func WithoutPersonal(e *Event) *Event {
	switch k := e.GetKind().(type) {
	case *Event_Preferences:
		p := k.Preferences
		if listed(p.GetBefore())+listed(p.GetAfter()) == 0 {
			return e
		}
		return &Event{Kind: &Event_Preferences{Preferences: &PreferencesChanged{
			Owner: p.GetOwner(), Before: unlisted(p.GetBefore()), After: unlisted(p.GetAfter()),
			Actor: p.GetActor(), Cause: p.GetCause(),
		}}}
	case *Event_Roster:
		if k.Roster.GetContact() == "" && k.Roster.GetItem() == nil {
			return e
		}
		return &Event{Kind: &Event_Roster{Roster: &RosterChanged{Owner: k.Roster.GetOwner()}}}
	case *Event_Account:
		a := k.Account
		if len(a.GetCredentials().GetScram()) == 0 {
			return e
		}
		return &Event{Kind: &Event_Account{Account: &AccountChanged{Owner: a.GetOwner(), Credentials: &Credentials{}, Actor: a.GetActor()}}}
	}
	return e
}

func listed(p *Preferences) int { return len(p.GetAlways()) + len(p.GetNever()) }

func unlisted(p *Preferences) *Preferences {
	if p == nil {
		return nil
	}
	return &Preferences{Default: p.GetDefault()}
}

func (g *group) addPersonal(r Record, personal []byte) error {
	if personal == nil {
		return nil
	}
	g.bytes += len(personal)
	return g.batch.Set(personalKey(r.ID), personal, nil)
}

// reattach gives r what lies apart of it, if it is still there.
func reattach(db pebble.Reader, r *Record) error {
	if r.Event.PersonalHash == nil {
		return nil
	}
	v, closer, err := db.Get(personalKey(r.ID))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("record %s: %w", r.ID, err)
	}
	defer closer.Close()
	if r.Event, err = r.Event.Whole(v); err != nil {
		err = fmt.Errorf("record %s: %w", r.ID, err)
	}
	return err
}

// ErrNotAsRecorded is wrapped by the error of reading a record whose personal
// content is another than it was: somebody changed it.
var ErrNotAsRecorded = errors.New("what lies apart of it is not what it has the hash of")

// Whole is the event that e, as it is stored, is together with the personal content
// that lies apart of it.
func (e *Event) Whole(personal []byte) (*Event, error) {
	if sum := sha256.Sum256(personal); !bytes.Equal(sum[:], e.GetPersonalHash()) || len(personal) < 16 {
		return e, ErrNotAsRecorded
	}
	whole := new(Event)
	return whole, proto.Unmarshal(personal[16:], whole)
}

// Personal is what lies apart of the audit record with that id; nil if it was
// erased, or never was.
func (l *Log) Personal(id ulid.ULID) ([]byte, error) {
	v, err := l.get(personalKey(id))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	return v, err
}

// Erased tells whether the personal content of the record was erased.
func (r Record) Erased() bool { return r.Event.GetPersonalHash() != nil }

// Personal is what of one owner's audit records can be erased.
type Personal struct {
	records             []ulid.ULID
	Preferences, Roster uint64 // changes of these among them
}

// PersonalOf finds the personal content of the records about owner up to last; that
// of their account only with account, which must not exist any more then.
func (l *Log) PersonalOf(owner string, last ulid.ULID, account bool) (p Personal, err error) {
	fail := func(err error) (Personal, error) {
		return Personal{}, fmt.Errorf("log: find the personal content of %s: %w", owner, err)
	}
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: recordKey(Audit, ulid.ULID{}), UpperBound: append(recordKey(Audit, last), 0)})
	if err != nil {
		return fail(err)
	}
	defer it.Close()
	for it.First(); it.Valid(); it.Next() {
		if !bytes.Contains(it.Value(), []byte(owner)) {
			continue
		}
		r, err := decodeRecord(it.Key(), it.Value())
		if err != nil {
			return fail(err)
		}
		if r.Event.Owner() != owner || !r.Erased() || r.Event.GetAccount() != nil && !account {
			continue
		}
		_, closer, err := l.db.Get(personalKey(r.ID))
		if errors.Is(err, pebble.ErrNotFound) {
			continue // erased before
		}
		if err != nil {
			return fail(err)
		}
		if err := closer.Close(); err != nil {
			return fail(err)
		}
		switch {
		case r.Event.GetPreferences() != nil:
			p.Preferences++
		case r.Event.GetRoster() != nil:
			p.Roster++
		}
		p.records = append(p.records, r.ID)
	}
	if err := it.Error(); err != nil {
		return fail(err)
	}
	return p, nil
}

// addForget puts the deletion of personal content into the batch.
func (g *group) addForget(p Personal) error {
	for _, id := range p.records {
		if err := g.batch.Delete(personalKey(id), nil); err != nil {
			return err
		}
	}
	return nil
}
