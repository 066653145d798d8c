package log

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// What is encoded by hand has the bytes of proto.Marshal, whatever fields the schema
// gives a message.
func TestEncodingIsThatOfProto(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	number := func() uint64 { return r.Uint64() >> r.UintN(64) }
	text := func() string {
		return strings.Repeat(string(rune('a'+r.IntN(26)))+"ü", []int{0, 1, 20, 63, 64, 5000, 9000}[r.IntN(7)])
	}
	fill := func(m protoreflect.Message) {
		for i := range m.Descriptor().Fields().Len() {
			f := m.Descriptor().Fields().Get(i)
			if r.IntN(2) == 0 {
				continue
			}
			var v any
			switch f.Kind() {
			case protoreflect.StringKind:
				v = text()
			case protoreflect.BytesKind:
				v = []byte(text())
			case protoreflect.EnumKind:
				v = protoreflect.EnumNumber(int32(number()))
			case protoreflect.Int64Kind:
				v = int64(number())
			case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
				v = number()
			case protoreflect.BoolKind:
				v = true
			default:
				t.Fatalf("this test makes no %s", f.Kind())
			}
			m.Set(f, protoreflect.ValueOf(v))
		}
		if r.IntN(4) == 0 {
			m.SetUnknown([]byte{0xf8, 0x07, 0x01}) // field 127, of a later version
		}
	}
	const rounds = 5000
	for range rounds {
		m := new(MessageArchived)
		fill(m.ProtoReflect())
		e := &Event{Kind: &Event_Message{Message: m}}
		want, err := proto.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		v, err := encode(e)
		if err != nil || v.message == nil || v.size != len(want) {
			t.Fatalf("%v has %d bytes (by hand: %v, %v), want %d", m, v.size, v.message != nil, err, len(want))
		}
		got := make([]byte, v.size)
		if v.put(got); !bytes.Equal(got, want) {
			t.Fatalf("%v is encoded as %x, want %x", m, got, want)
		}
	}
	for _, e := range []*Event{
		{Kind: &Event_Message{Message: &MessageArchived{Peer: "\xff"}}},
		{Kind: &Event_Cut{Cut: &Cut{Owner: "\xff"}}},
	} {
		if _, err := encode(e); err == nil {
			t.Errorf("%v is encoded", e)
		}
	}
	odd := &Event{Kind: &Event_Message{}, PersonalHash: bytes.Repeat([]byte{1}, 32)}
	want, _ := proto.Marshal(odd)
	if v, err := encode(odd); err != nil || !bytes.Equal(v.bytes, want) || v.size != len(want) {
		t.Errorf("%v is encoded as %x (%v), want %x", odd, v.bytes, err, want)
	}
}

func BenchmarkEncode(b *testing.B) {
	e := message("juliet@capulet.example", strings.Repeat("x", 400))
	e.GetMessage().Peer, e.GetMessage().StanzaId = "romeo@montague.example/orchard", "4711"
	buf := make([]byte, 1000)
	b.Run("by hand", func(b *testing.B) {
		for b.Loop() {
			v, _ := encode(e)
			v.put(buf[:v.size])
		}
	})
	b.Run("proto", func(b *testing.B) {
		for b.Loop() {
			v, _ := proto.Marshal(e)
			copy(buf, v)
		}
	})
}
