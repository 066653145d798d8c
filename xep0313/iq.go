package xep0313

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"go.uber.org/zap"
	"mellium.im/xmpp/jid"

	"mamlog/log"
	"mamlog/projections"
	"mamlog/xep0313/stanza"
)

// Answers tells whether requests in that namespace are for the archive.
func Answers(space string) bool { return space == NS || space == NSTrim }

// HandleIQ answers iq if it is a get or set of the archive's namespace, or of
// NSTrim, to an account, and tells whether it was. asker is the full JID that sent it, as the
// host has established it; an iq without a to is for the asker's own account.
// emit is called for every stanza of the answer, the result or error iq last;
// each is XML with its own xmlns, in memory that is used again after the call.
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
	return r, r.host != nil && r.payload != nil && Answers(r.payload.Space) && (typ == "get" || typ == "set")
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
	se, ok := errors.AsType[*stanza.Error](err)
	if !ok {
		a.logger.Error("a request to an archive failed", zap.String("kind", kindOf(r.payload)), zap.Error(err))
		se = Refusal(err)
	}
	r.fail(se)
}

// answer emits the answer, or returns the error to answer with, in which case
// it has emitted nothing.
func (a *Archive) answer(ctx context.Context, r *request) error {
	set := r.iq.Attr("type") == "set"
	switch {
	case r.payload.Space == NSTrim && r.room:
		return stanza.NotAllowed("nobody can trim the archive of a room")
	case r.payload.Is(NSTrim, "trim") && set:
		return a.trim(ctx, r)
	case r.payload.Space == NSTrim:
	case r.payload.Local == "query" && set:
		q, err := parseQuery(r.payload, r.host.Options.MaxQueryResults, a.limits)
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
	return stanza.FeatureNotImplemented("<%s/> with type=%q is not part of %s", r.payload.Local, r.iq.Attr("type"), r.payload.Space)
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
	w := writers.Get().(*resultWriter)
	defer w.release()
	w.begin(r, q.id)
	q.MaxBytes, q.RowBytes = maxPageBytes, len(w.between)+senderBytes
	page, err := r.host.Archives.Visit(q.Query, w.add)
	if missing, ok := errors.AsType[*projections.NotFoundError](err); ok {
		return stanza.ItemNotFound("there is no message %q in the archive", missing.ID)
	}
	if err != nil {
		return err
	}
	w.finish()
	w.emit(q.Backward != q.flip)
	w.results = appendFin(w.results[:0], r.iq, page)
	r.emit(w.results)
	a.metrics.results.Add(float64(page.Len))
	return nil
}

// resultWriter splices the results of one answer into one piece of memory, which
// is used again for the next.
type resultWriter struct {
	request *request
	between []byte // the end of a result and what stands before the stanza of the next one, whose id and time are put in
	id      int    // where the id begins in between
	stamp   int    // where the stamp does
	day     int64  // since 1970, of the stamp that is there
	results []byte
	ends    []int // of each result, in results
}

var writers = sync.Pool{New: func() any { return new(resultWriter) }}

func (w *resultWriter) begin(r *request, queryID string) {
	w.request = r
	w.between = appendResultHead(append(w.between[:0], resultTail...), r.owner, r.asker.String(), queryID)
	w.id = len(w.between)
	w.between = append(appendID(w.between, ulid.ULID{}), resultMiddle...)
	w.stamp = len(w.between)
	w.between = append(appendStamp(w.between, 0), resultDelayEnd...)
	w.day = 0
	w.results, w.ends = w.results[:0], w.ends[:0]
}

func (w *resultWriter) release() {
	w.request = nil
	if cap(w.results) <= maxPageBytes { // one large page should not be kept for ever
		writers.Put(w)
	}
}

func (w *resultWriter) add(row *projections.Row) error {
	putID(w.between[w.id:], row.ID)
	ms := row.UnixMilli()
	if day := dayOf(ms); day == w.day { // as most of a page are
		putTimeOfDay(w.between[len(w.between)-len(resultDelayEnd)-timeOfDayBytes:], ms)
	} else {
		w.between, w.day = append(appendStamp(w.between[:w.stamp], ms), resultDelayEnd...), day
	}
	// One copy for the end of the last result and the beginning of this.
	head := w.between
	if n := len(w.ends); n == 0 {
		head = head[len(resultTail):]
	} else {
		w.ends[n-1] += len(resultTail)
	}
	b := append(w.results, head...)
	if sender := w.request.sender(row); sender != "" {
		b = appendWithSender(b, row.Stanza, sender)
	} else {
		b = append(b, row.Stanza...)
	}
	w.results = b
	w.ends = append(w.ends, len(b))
	return nil
}

// finish ends the last result.
func (w *resultWriter) finish() {
	if n := len(w.ends); n > 0 {
		w.results = append(w.results, resultTail...)
		w.ends[n-1] = len(w.results)
	}
}

// emit hands out the results, in the order in which they came or the other way
// round.
func (w *resultWriter) emit(reverse bool) {
	for n := range w.ends {
		if reverse {
			n = len(w.ends) - 1 - n
		}
		from := 0
		if n > 0 {
			from = w.ends[n-1]
		}
		w.request.emit(w.results[from:w.ends[n]:w.ends[n]])
	}
}

// appendResultHead appends what all result messages of one answer begin with.
func appendResultHead(b []byte, owner, asker, queryID string) []byte {
	b = append(b, `<message xmlns='`+stanza.NSClient+`' from='`...)
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
	resultMiddle   = `'><forwarded xmlns='` + NSForward + `'><delay xmlns='` + NSDelay + `' stamp='`
	resultDelayEnd = `'/>`
	resultTail     = `</forwarded></result></message>`

	// senderBytes is what a result in a room has more, with the sender's name apart.
	senderBytes = len(senderHead) + len(senderTail)
)

// appendFin appends the iq that ends an answer. First and last are those of the
// page in chronological order, flipped or not.
func appendFin(b []byte, iq *stanza.Element, p projections.Page) []byte {
	b = append(b, `<iq xmlns='`+stanza.NSClient+`' type='result'`...)
	for _, a := range [...]struct{ name, from string }{{"id", "id"}, {"from", "to"}, {"to", "from"}} {
		if v := iq.Attr(a.from); v != "" {
			b = append(append(append(b, ' '), a.name...), `='`...)
			b = append(stanza.AppendEscaped(b, v), '\'')
		}
	}
	b = append(b, `><fin xmlns='`+NS+`'`...)
	if p.Complete {
		b = append(b, ` complete='true'`...)
	}
	b = append(b, `><set xmlns='`+NSRSM+`'>`...)
	if p.Len > 0 {
		b = append(b, `<first index='`...)
		b = strconv.AppendInt(b, int64(p.Index), 10)
		b = appendID(append(b, `'>`...), p.First)
		b = appendID(append(b, `</first><last>`...), p.Last)
		b = append(b, `</last>`...)
	}
	b = append(b, `<count>`...)
	b = strconv.AppendInt(b, int64(p.Count), 10)
	return append(b, `</count></set></fin></iq>`...)
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
			return stanza.New(NS, name, "id", row.ID.String(), "timestamp", stamp(row.UnixMilli()))
		}
		m.Add(end("start", first), end("end", last))
	}
	r.result(m)
	return nil
}
