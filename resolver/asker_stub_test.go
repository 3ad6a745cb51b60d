package resolver

func testAsker(tcp bool, fn func([]byte)) asker { return asker{fn: fn, isT: tcp} }
