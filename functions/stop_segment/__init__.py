"""Stops segment tasks through the RTC API, as the event queue's messages say.

Read it from the top. A module imports only from the lines below its own, and from `segments`; `make lint` sees to that.

    handler     an invocation, from its messages to their ends
    wiring      what an environment makes once
    logs        log lines and metrics
    workflows   what a workflow is told of the end of its message
    stopper     what is done with the events of a batch
    arrivals, queues            what comes in, and what is asked of SQS
    notices     what workflows are told of a dead letter
    failures    what becomes of a message that failed
    settings
"""
