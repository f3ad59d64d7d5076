"""Stops segment tasks through the RTC API, as the event queue's messages say.

Read it from the top. A module imports only from the lines below its own; `make lint` sees to that.

    handler     an invocation, from its messages to their ends
    service     what an environment makes once
    report      log lines and metrics
    stopper     what is done with the events of a batch
    arrivals, calls, queues, records, rtc       what comes in, and what is asked of SQS, DynamoDB and the RTC API
    notices     what workflows are told of a dead letter
    failures    what becomes of a message that failed
    circuit, credentials, turns                 what an API call needs
    rules       what a stop event may stop
    events      what a message says
    envelopes   what is around it
    errors, settings
"""
