package log

import "github.com/oklog/ulid/v2"

// NewMessage returns an event with a message that has nothing yet but what decided
// on it, if that isn't zero: all of it in one allocation.
func NewMessage(decidedBy ulid.ULID) *Event {
	e := new(struct {
		event     Event
		kind      Event_Message
		message   MessageArchived
		decidedBy ulid.ULID
	})
	e.event.Kind = &e.kind
	e.kind.Message = &e.message
	if e.decidedBy = decidedBy; decidedBy != (ulid.ULID{}) {
		e.message.DecidedBy = e.decidedBy[:]
	}
	return &e.event
}
