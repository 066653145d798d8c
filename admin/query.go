package admin

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"connectrpc.com/connect"
	"github.com/oklog/ulid/v2"
	"google.golang.org/protobuf/types/known/timestamppb"
	"mellium.im/xmpp/jid"

	adminv1 "mamlog/admin/v1"
	"mamlog/projections"
	"mamlog/xep0313/stanza"
)

const (
	rowsPerPage     = 200
	bytesPerMessage = 256 << 10 // of stanzas in one message of the stream, about
)

// QueryArchive streams what matches, oldest first.
func (s *Service) QueryArchive(ctx context.Context, r *connect.Request[adminv1.QueryArchiveRequest], stream *connect.ServerStream[adminv1.QueryArchiveResponse]) error {
	owner, err := s.account(r.Msg.GetOwner())
	if err != nil {
		return err
	}
	if err := s.mustLive(owner); err != nil {
		return err
	}
	q, err := readQuery(r.Msg)
	if err != nil {
		return connect.NewError(connect.CodeInvalidArgument, err)
	}
	rows, all, err := s.Archive.Archive(owner)
	if err != nil {
		return err
	}
	q.Class, q.Owner, q.NotBefore, q.Floor = all.Class, all.Owner, all.NotBefore, all.Floor
	if err := s.Archive.NoteRead(ctx, owner, Caller(ctx), describeQuery(r.Msg)); err != nil {
		return fmt.Errorf("record that the archive is read: %w", err)
	}
	left := r.Msg.GetFirst()
	if n := r.Msg.GetLast(); n > 0 {
		count, err := countMatches(rows, q)
		if err != nil {
			return err
		}
		left = n
		q.Index = max(0, count-int(min(n, uint64(count))))
	}
	return sendPages(ctx, rows, q, left, stream)
}

// sendPages sends all that matches q, or the first left of it if that isn't 0.
func sendPages(ctx context.Context, rows *projections.Store, q projections.Query, left uint64, stream *connect.ServerStream[adminv1.QueryArchiveResponse]) error {
	limited := left > 0
	for {
		q.Max = rowsPerPage
		if limited {
			q.Max = int(min(left, rowsPerPage))
		}
		page, err := rows.Query(q)
		var gone *projections.NotFoundError
		if errors.As(err, &gone) && q.PageAfter == gone.ID {
			// The last message sent has expired since, and with it all before
			// it: what is left begins behind it.
			q.PageAfter = ulid.ULID{}
			continue
		}
		if err != nil {
			return err
		}
		if err := sendPage(page, stream); err != nil {
			return err
		}
		left -= uint64(len(page.Rows))
		if page.Complete || len(page.Rows) == 0 || limited && left == 0 {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		q.PageAfter, q.Index = page.Rows[len(page.Rows)-1].ID, 0
	}
}

func sendPage(page projections.Page, stream *connect.ServerStream[adminv1.QueryArchiveResponse]) error {
	part, size := &adminv1.QueryArchiveResponse{Count: uint64(page.Count)}, 0
	for _, row := range page.Rows {
		if size > bytesPerMessage {
			if err := stream.Send(part); err != nil {
				return err
			}
			part, size = &adminv1.QueryArchiveResponse{Count: uint64(page.Count)}, 0
		}
		m, err := message(row)
		if err != nil {
			return err
		}
		part.Messages = append(part.Messages, m)
		size += len(row.Stanza)
	}
	return stream.Send(part)
}

func message(row projections.Row) (*adminv1.Message, error) {
	m, err := row.Message()
	if err != nil {
		return nil, fmt.Errorf("read the message %s: %w", row.ID, err)
	}
	return &adminv1.Message{
		Id:        row.ID.String(),
		Stamp:     timestamppb.New(row.Time()),
		With:      m.GetPeer(),
		Direction: m.GetDirection(),
		Body:      body(m.GetStanza()),
		Stanza:    string(m.GetStanza()),
		Reason:    m.GetReason(),
		DecidedBy: idText(m.GetDecidedBy()),
		Sender:    m.GetSender(),
	}, nil
}

func body(b []byte) string {
	e, err := stanza.Parse(b)
	if err != nil {
		return ""
	}
	return e.ChildText(stanza.NSClient, "body")
}

func idText(b []byte) string {
	if len(b) != len(ulid.ULID{}) {
		return ""
	}
	return ulid.ULID(b).String()
}

// countMatches counts the result set of q, which holds no page bounds yet.
func countMatches(rows *projections.Store, q projections.Query) (int, error) {
	q.Max = 0
	page, err := rows.Query(q)
	return page.Count, err
}

func readQuery(r *adminv1.QueryArchiveRequest) (q projections.Query, err error) {
	if r.GetFirst() > 0 && r.GetLast() > 0 {
		return q, errors.New("first and last exclude each other")
	}
	if w := r.GetWith(); w != "" {
		j, err := jid.Parse(w)
		if err != nil {
			return q, fmt.Errorf("with: %q is not a JID: %w", w, err)
		}
		q.With = j.String()
	}
	for _, id := range []struct {
		name, text string
		to         *ulid.ULID
	}{{"after", r.GetAfter(), &q.After}, {"before", r.GetBefore(), &q.Before}} {
		if id.text == "" {
			continue
		}
		if *id.to, err = ulid.ParseStrict(id.text); err != nil {
			return q, fmt.Errorf("%s: %q is not an archive id, which is 26 letters and digits", id.name, id.text)
		}
	}
	if r.GetStart() != nil {
		q.Since = r.GetStart().AsTime()
	}
	if r.GetEnd() != nil {
		q.Until = r.GetEnd().AsTime()
	}
	return q, nil
}

// describeQuery is what is written down about a read: its bounds.
func describeQuery(r *adminv1.QueryArchiveRequest) string {
	var b []string
	add := func(name, value string) {
		if value != "" {
			b = append(b, name+"="+value)
		}
	}
	number := func(n uint64) string {
		if n == 0 {
			return ""
		}
		return fmt.Sprint(n)
	}
	add("with", r.GetWith())
	add("start", stampText(r.GetStart()))
	add("end", stampText(r.GetEnd()))
	add("after", r.GetAfter())
	add("before", r.GetBefore())
	add("first", number(r.GetFirst()))
	add("last", number(r.GetLast()))
	if len(b) == 0 {
		return "everything"
	}
	return strings.Join(b, " ")
}
