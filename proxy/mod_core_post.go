package proxy

// after says what post_action follows.
type after uint8

const (
	afterNothing after = iota // there is no such thing, or not yet
	afterAnswer
	afterFailure // the client did not get its answer
)

// postAction processes the request once more, as post_action says, when the client
// has its answer or is gone. The client sees nothing of it, but for the time that
// the connection's next request waits; variables and the log see it as if it had
// been an internal redirect (ngx_http_post_action). An action whose location
// has an action is followed by that one.
func (x *Exchange) postAction() {
	for x.loc.Conf.Core.PostAction != "" && x.redirects <= maxRedirects {
		if x.trace != nil {
			x.trace.again(x)
		}
		if x.post == afterNothing {
			x.endForClient()
			client, failed := x.stream, x.failed
			defer func() { x.stream, x.failed = client, failed }()
			x.inner.stream = subStream{x: x, to: toNobody}
			x.stream, x.headerOnly, x.failed = &x.inner.stream, true, false
		}
		x.headSent = false
		code := Code(0)
		if uri := []byte(x.loc.Conf.Core.PostAction); uri[0] == '/' {
			code = x.redirectTo(uri, nil)
		} else {
			code = x.redirectToNamed(uri)
		}
		for code = x.finalize(code); code == Again; {
			code = x.finalize(x.phases())
		}
	}
}

// endForClient notes how the answer has ended. What is left of the request's body
// is not for the action.
func (x *Exchange) endForClient() {
	x.stream.unwatch()
	x.discardBody()
	x.countSent()
	x.post = afterAnswer
	if x.failed || !x.headSent {
		x.post = afterFailure
	}
}

// completed says whether the client got the whole answer.
func (x *Exchange) completed() bool {
	if x.post != afterNothing {
		return x.post == afterAnswer
	}
	return x.headSent && !x.failed
}
