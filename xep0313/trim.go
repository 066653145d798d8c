package xep0313

import (
	"context"
	"errors"
	"strconv"

	"github.com/oklog/ulid/v2"

	"mamlog/log"
	"mamlog/projections"
	"mamlog/xep0313/stanza"
)

// NSTrim is the namespace in which a client deletes the oldest messages of its
// account's archive (docs/trim.md).
const NSTrim = "urn:mamlog:trim:0"

// trim deletes what the asker's archive has up to a message.
func (a *Archive) trim(ctx context.Context, r *request) error {
	until := r.payload.Attr("until")
	missing := stanza.ItemNotFound("there is no message %q in the archive", until)
	id, err := ulid.ParseStrict(until)
	switch {
	case until == "":
		return stanza.BadRequest("until is missing: the archive id of the newest message that is to go")
	case err != nil || id.String() != until:
		return missing
	}
	q, err := a.all(r.host, r.owner)
	if err != nil {
		return err
	}
	q.IDs = []ulid.ULID{id}
	var gone *projections.NotFoundError
	if _, err := r.host.Archives.Query(q); errors.As(err, &gone) {
		return missing
	} else if err != nil {
		return err
	}
	cut, err := a.cut(ctx, r.host, r.owner, id, log.CutCause_CUT_CAUSE_TRIM, r.asker.String())
	if err != nil {
		return err
	}
	r.result(stanza.New(NSTrim, "trimmed", "until", until, "count", strconv.FormatUint(cut.Messages, 10)))
	return nil
}
