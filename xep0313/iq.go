package xep0313

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/oklog/ulid/v2"
	"go.uber.org/zap"
	"mellium.im/xmpp/jid"

	"mamlog/log"
	"mamlog/projections"
	"mamlog/xep0313/stanza"
)

// HandleIQ answers iq if it is a get or set of the archive's namespace to an
// account, and tells whether it was. asker is the full JID that sent it, as the
// host has established it; an iq without a to is for the asker's own account.
// emit is called for every stanza of the answer, the result or error iq last;
// each is XML with its own xmlns, and not changed afterwards.
func (a *Archive) HandleIQ(ctx context.Context, iq *stanza.Element, asker jid.JID, emit func([]byte)) (handled bool) {
	owner := asker.Bare()
	to := iq.Attr("to")
	if to != "" {
		var err error
		if owner, err = jid.Parse(to); err != nil || owner.Localpart() == "" || owner.Resourcepart() != "" {
			return false
		}
	}
	r, ok := a.request(iq, owner, asker, emit)
	if !ok {
		return false
	}
	if to != "" {
		r.iq = iq.Copy()
		r.iq.SetAttr("to", r.owner) // answered from the prepared address
	}
	if !owner.Equal(asker.Bare()) {
		a.metrics.queries.WithLabelValues(kindOf(r.payload), "forbidden").Inc()
		r.fail(stanza.Forbidden("only its owner may use an archive"))
		return true
	}
	a.handle(ctx, r)
	return true
}

// request is an iq to an archive.
type request struct {
	host        *host
	owner       string // bare JID of the archive
	asker       jid.JID
	iq, payload *stanza.Element
	emit        func([]byte)

	room     bool
	realJIDs RealJIDs
}

// request makes an iq one to the archive of owner; ok is false if it is nothing
// for an archive that is here.
func (a *Archive) request(iq *stanza.Element, owner, asker jid.JID, emit func([]byte)) (r *request, ok bool) {
	r = &request{
		host: a.hosts[owner.Domainpart()], owner: owner.Bare().String(), asker: asker,
		iq: iq, payload: iq.First(), emit: emit,
	}
	typ := iq.Attr("type")
	return r, r.host != nil && r.payload != nil && r.payload.Space == NS && (typ == "get" || typ == "set")
}

func (r *request) result(payload *stanza.Element) {
	r.emit(r.iq.Reply("result").Add(payload).Bytes())
}

func (r *request) fail(err *stanza.Error) { r.emit(r.iq.ReplyError(err).Bytes()) }

// handle answers a request of somebody who may make it.
func (a *Archive) handle(ctx context.Context, r *request) {
	started := time.Now()
	err := a.answer(ctx, r)
	a.metrics.observe(r.payload, time.Since(started), err)
	if err == nil {
		return
	}
	var se *stanza.Error
	if !errors.As(err, &se) {
		a.logger.Error("a request to an archive failed", zap.String("kind", kindOf(r.payload)), zap.Error(err))
		se = stanza.InternalServerError()
	}
	r.fail(se)
}

// answer emits the answer, or returns the error to answer with, in which case
// it has emitted nothing.
func (a *Archive) answer(ctx context.Context, r *request) error {
	set := r.iq.Attr("type") == "set"
	switch {
	case r.payload.Local == "query" && set:
		q, err := parseQuery(r.payload, r.host.Options.MaxQueryResults)
		if err != nil {
			return err
		}
		if err := a.noteUse(ctx, r); err != nil {
			return err
		}
		return a.page(r, q)
	case r.payload.Local == "query":
		r.result(stanza.New(NS, "query").Add(queryForm(r.room)))
		return nil
	case r.payload.Local == "metadata" && !set:
		if err := a.noteUse(ctx, r); err != nil {
			return err
		}
		return a.metadata(r)
	case r.payload.Local == "prefs" && r.room:
		return stanza.FeatureNotImplemented("a room has no archiving preferences")
	case r.payload.Local == "prefs" && set:
		p, err := parsePrefs(r.payload)
		if err != nil {
			return err
		}
		p, err = a.SetPreferences(ctx, r.asker, p, r.asker.String(), log.Cause_CAUSE_CLIENT)
		if err != nil {
			return err
		}
		r.result(prefsElement(p))
		return nil
	case r.payload.Local == "prefs":
		if err := a.noteUse(ctx, r); err != nil {
			return err
		}
		p, _, _, err := a.Preferences(r.asker)
		if err != nil {
			return err
		}
		r.result(prefsElement(p))
		return nil
	}
	return stanza.FeatureNotImplemented("<%s/> with type=%q is not part of %s", r.payload.Local, r.iq.Attr("type"), NS)
}

// maxPageBytes is how many bytes of results one answer has, about, and one result
// more: what it is sent through must take it as a whole.
const maxPageBytes = 256 << 10

// page answers a query with a page of results and <fin/> (XEP-0313 section 4.2).
func (a *Archive) page(r *request, q query) error {
	all, err := a.all(r.host, r.owner)
	if err != nil {
		return err
	}
	q.Class, q.Owner, q.NotBefore, q.Floor = all.Class, all.Owner, all.NotBefore, all.Floor
	if r.room && q.With == r.owner {
		q.With = "" // all is from the room
	}
	head := resultHead(r.owner, r.asker.String(), q.id)
	q.MaxBytes, q.RowBytes = maxPageBytes, len(head)+resultBytes
	page, err := r.host.Archives.Query(q.Query)
	var missing *projections.NotFoundError
	if errors.As(err, &missing) {
		return stanza.ItemNotFound("there is no message %q in the archive", missing.ID)
	}
	if err != nil {
		return err
	}
	rows := page.Rows
	if q.flip {
		rows = slices.Clone(rows)
		slices.Reverse(rows)
	}
	size := 0
	for _, row := range rows {
		size += q.RowBytes + len(row.Stanza) + len(row.Sender)
	}
	b := make([]byte, 0, size)
	for _, row := range rows {
		from := len(b)
		b = appendResult(b, head, row, r.sender(row))
		r.emit(b[from:len(b):len(b)])
	}
	r.emit(appendFin(nil, r.iq, page))
	a.metrics.results.Add(float64(len(rows)))
	return nil
}

// resultHead is what all result messages of one answer begin with.
func resultHead(owner, asker, queryID string) []byte {
	b := append([]byte(nil), `<message xmlns='`+stanza.NSClient+`' from='`...)
	b = stanza.AppendEscaped(b, owner)
	b = append(b, `' to='`...)
	b = stanza.AppendEscaped(b, asker)
	b = append(b, `'><result xmlns='`+NS+`'`...)
	if queryID != "" {
		b = append(b, ` queryid='`...)
		b = stanza.AppendEscaped(b, queryID)
		b = append(b, '\'')
	}
	return append(b, ` id='`...)
}

const (
	resultMiddle = `'><forwarded xmlns='` + NSForward + `'><delay xmlns='` + NSDelay + `' stamp='`
	resultTail   = `</forwarded></result></message>`
	stampLayout  = "2006-01-02T15:04:05.000Z"

	// resultBytes is what a result has beside its head and the stanza, in a room
	// with the sender's name apart.
	resultBytes = ulid.EncodedSize + len(resultMiddle) + len(stampLayout) + len(`'/>`) + len(senderHead) + len(senderTail) + len(resultTail)
)

// appendResult splices a stored stanza into a result message, with the real JID
// of its sender if that isn't "".
func appendResult(b, head []byte, row projections.Row, sender string) []byte {
	b = append(b, head...)
	b = appendID(b, row.ID)
	b = append(b, resultMiddle...)
	b = appendStamp(b, row.Time())
	b = append(b, `'/>`...)
	if sender != "" {
		b = appendWithSender(b, row.Stanza, sender)
	} else {
		b = append(b, row.Stanza...)
	}
	return append(b, resultTail...)
}

// appendStamp appends a time in the profile of XEP-0082, to the millisecond.
func appendStamp(b []byte, t time.Time) []byte {
	return t.AppendFormat(b, stampLayout)
}

// appendFin appends the iq that ends an answer. First and last are those of the
// page in chronological order, flipped or not.
func appendFin(b []byte, iq *stanza.Element, p projections.Page) []byte {
	fin := stanza.New(NS, "fin")
	if p.Complete {
		fin.SetAttr("complete", "true")
	}
	set := stanza.New(NSRSM, "set")
	if n := len(p.Rows); n > 0 {
		set.Add(
			stanza.New(NSRSM, "first", "index", strconv.Itoa(p.Index)).AddText(p.Rows[0].ID.String()),
			stanza.New(NSRSM, "last").AddText(p.Rows[n-1].ID.String()))
	}
	set.Add(stanza.New(NSRSM, "count").AddText(strconv.Itoa(p.Count)))
	return iq.Reply("result").Add(fin.Add(set)).Append(b, "")
}

// metadata answers with the first and the last message (XEP-0313 section 5).
func (a *Archive) metadata(r *request) error {
	all, err := a.all(r.host, r.owner)
	if err != nil {
		return err
	}
	first, last, ok, err := r.host.Archives.Bounds(all.Class, all.Owner, all.NotBefore, all.Floor)
	if err != nil {
		return err
	}
	m := stanza.New(NS, "metadata")
	if ok {
		end := func(name string, row projections.Row) *stanza.Element {
			return stanza.New(NS, name, "id", row.ID.String(), "timestamp", string(appendStamp(nil, row.Time())))
		}
		m.Add(end("start", first), end("end", last))
	}
	r.result(m)
	return nil
}
