package projections

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/bits"
	"sort"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/oklog/ulid/v2"
)

// A chunk is up to sixteen messages that follow each other in an archive, or in a
// conversation of it: the value of one row, under the id of the oldest of them.
//
//	size uvarint | ulid | ordinal uvarint | content     ← oldest
//	size uvarint | ulid | ordinal uvarint | content
//	…
//
// size is that of what follows it up to the next one. The first message of a chunk is
// set, the others are merged: the engine joins them when it writes tables, or when
// somebody reads before that. So a page of 50 is five steps through the engine instead
// of 50, and a message costs no more to write than a row of its own.
//
// Where a chunk begins follows from the messages alone, and so from the log.
const (
	chunkMessages = 16
	// A message of so many bytes begins a chunk, so that the bytes of one are bounded.
	chunkLarge = 4 << 10
)

// begins tells whether the message with that ordinal, and so many bytes, begins a chunk.
func begins(ordinal, size uint64) bool {
	return (ordinal-1)%chunkMessages == 0 || size >= chunkLarge
}

// chunk is one that is read. Its messages are counted from the oldest.
type chunk struct {
	value    []byte
	messages []messageSpan
}

// messageSpan is where a message is in a value: its id from the one, what it holds
// from the other.
type messageSpan struct {
	id, content, end uint32
	ordinal          uint64
}

// read finds the messages in value. On an error, and in the beginning, it has none.
func (c *chunk) read(value []byte) error {
	messages := c.messages[:0]
	for at := 0; at < len(value); {
		size, n := binary.Uvarint(value[at:])
		at += max(n, 0)
		if n <= 0 || size <= uint64(len(ulid.ULID{})) || size > uint64(len(value)-at) {
			c.clear()
			return errDamagedRow
		}
		end := at + int(size)
		content := at + len(ulid.ULID{})
		ordinal, n := binary.Uvarint(value[content:end])
		if n <= 0 {
			c.clear()
			return errDamagedRow
		}
		messages = append(messages, messageSpan{uint32(at), uint32(content + n), uint32(end), ordinal})
		at = end
	}
	c.value, c.messages = value, messages
	return nil
}

func (c *chunk) clear() { c.value, c.messages = nil, c.messages[:0] }

func (c *chunk) len() int { return len(c.messages) }

// idBytes are those of the nth message's id.
func (c *chunk) idBytes(n int) *[16]byte { return (*[16]byte)(c.value[c.messages[n].id:]) }

func (c *chunk) id(n int) ulid.ULID { return ulid.ULID(*c.idBytes(n)) }

// compare compares the id of the nth message with another.
func (c *chunk) compare(n int, id ulid.ULID) int { return bytes.Compare(c.idBytes(n)[:], id[:]) }

// covers tells whether id is not before the oldest nor after the newest message.
func (c *chunk) covers(id ulid.ULID) bool {
	n := c.len()
	return n > 0 && c.compare(n-1, id) >= 0 && c.compare(0, id) <= 0
}

// below is the number of messages whose id is below id.
func (c *chunk) below(id ulid.ULID) int {
	n := c.len()
	if n > 2*chunkMessages { // of the tail
		n = sort.Search(n, func(i int) bool { return c.compare(i, id) >= 0 })
	}
	for n > 0 && c.compare(n-1, id) >= 0 {
		n--
	}
	return n
}

func (c *chunk) ordinal(n int) uint64 { return c.messages[n].ordinal }

// content is the nth message's; it is empty where the archive's row has it.
func (c *chunk) content(n int) []byte {
	m := &c.messages[n]
	return c.value[m.content:m.end:m.end]
}

// rest is what the value has from the nth message on.
func (c *chunk) rest(n int) []byte {
	if n == 0 {
		return c.value
	}
	return c.value[c.messages[n-1].end:]
}

// messageHeadSize is how many bytes appendHead appends at most.
const messageHeadSize = binary.MaxVarintLen64 + len(ulid.ULID{}) + binary.MaxVarintLen64

// appendHead appends what a chunk has of a message before its content.
func appendHead(b []byte, id ulid.ULID, ordinal uint64, content []byte) []byte {
	var number [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(number[:], ordinal)
	b = binary.AppendUvarint(b, uint64(len(id)+n+len(content)))
	return append(append(b, id[:]...), number[:n]...)
}

// messageSize is how much appendMessage appends.
func messageSize(ordinal uint64, content []byte) int {
	n := len(ulid.ULID{}) + uvarintSize(ordinal) + len(content)
	return uvarintSize(uint64(n)) + n
}

func uvarintSize(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

func appendMessage(b []byte, id ulid.ULID, ordinal uint64, content []byte) []byte {
	return append(appendHead(b, id, ordinal, content), content...)
}

// chunkAt finds the chunk under prefix that id lies in: the newest that begins at it or
// before. Its value is good until the iterator moves; it has none if there is none.
func chunkAt(it *pebble.Iterator, prefix []byte, id ulid.ULID) (key []byte, c chunk, err error) {
	if !it.SeekGE(rowKey(prefix, id)) || !under(it.Key(), prefix) {
		return nil, c, it.Error()
	}
	return it.Key(), c, c.read(it.Value())
}

// joining is the merge operator of the rows: values one after the other, as they came.
// The name is the engine's for that, and the implementation ours because the engine's
// copies all that it has for each older value.
var joining = &pebble.Merger{
	Name: pebble.DefaultMerger.Name,
	Merge: func(_, value []byte) (pebble.ValueMerger, error) {
		j := joiners.Get().(*joiner)
		j.from = len(j.buf)
		j.to = j.from
		return j, j.MergeOlder(value)
	},
}

var joiners = sync.Pool{New: func() any { return &joiner{buf: make([]byte, 16<<10)} }}

// joiner has what was merged so far in buf[from:to]; older values come before it.
type joiner struct {
	buf      []byte
	from, to int
}

func (j *joiner) MergeOlder(value []byte) error {
	if len(value) > j.from {
		j.move(len(value), 0)
	}
	j.from -= len(value)
	copy(j.buf[j.from:], value)
	return nil
}

func (j *joiner) MergeNewer(value []byte) error {
	if len(value) > len(j.buf)-j.to {
		j.move(0, len(value))
	}
	j.to += copy(j.buf[j.to:], value)
	return nil
}

// move makes room before and behind what there is: as much again, so that the cost of
// many values is that of copying them twice.
func (j *joiner) move(before, behind int) {
	has := j.to - j.from
	if before > 0 {
		before = max(before, has)
	}
	if behind > 0 {
		behind = max(behind, has)
	}
	buf := j.buf
	if size := before + has + behind; size > len(buf) {
		buf = make([]byte, size)
	}
	from := len(buf) - behind - has
	copy(buf[from:], j.buf[j.from:j.to])
	j.buf, j.from, j.to = buf, from, from+has
}

func (j *joiner) Finish(bool) ([]byte, io.Closer, error) { return j.buf[j.from:j.to:j.to], j, nil }

// Close gives the memory back, unless a few large messages made it large.
func (j *joiner) Close() error {
	if len(j.buf) <= 1<<20 {
		joiners.Put(j)
	}
	return nil
}
