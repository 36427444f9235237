package proxy

// modules is the one ordered list of everything that can be configured. Within
// a phase, handlers run in this order; header filters see an answer in this
// order too: conditional requests are settled first, fields are added then, and
// the parts that Range asks for are cut last, out of what really is sent
// (nginx: auto/modules, read backwards).
func modules() []Module {
	return []Module{
		// the process
		mainModule(),
		errlogModule(),
		eventsModule(),
		eventCoreModule(),
		epollModule(),
		regexModule(),
		threadPoolModule(),
		confModule(),

		// the http core and what it answers by itself
		httpModule(),
		coreModule(),
		logModule(),
		upstreamModule(),
		upstreamKeepaliveModule(),
		upstreamZoneModule(),
		upstreamHashModule(),
		upstreamIPHashModule(),
		upstreamLeastConnModule(),
		upstreamRandomModule(),
		sslModule(),
		http2Module(),

		// before content
		realipModule(),
		realipLateModule(),
		rewriteModule(),
		mapModule(),
		accessModule(),

		// content
		proxyModule(),
		indexModule(),
		staticModule(),

		// filters
		notModifiedModule(),
		headersModule(),
		rangeModule(),
	}
}
