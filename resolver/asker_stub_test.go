package resolver

import "hard/internal/wire"

// testAsker is a client that takes its replies as calls of fn.
func testAsker(tcp bool, fn func([]byte)) asker { return asker{to: &testReplier{tcp, fn}} }

type testReplier struct {
	tcp bool
	fn  func([]byte)
}

func (t *testReplier) writeReply(_ asker, _ source, msg []byte) { t.fn(msg) }
func (t *testReplier) transport() wire.Transport                { return wire.Transport{TCP: t.tcp} }
func (t *testReplier) later(int32)                              {}
