import { App, CfnOutput, Stack } from "aws-cdk-lib";
import { CfnInclude } from "aws-cdk-lib/cloudformation-include";

const app = new App();
const stack = new Stack(app, "rtc-segment-stopper");
const stopper = new CfnInclude(stack, "Stopper", {
  templateFile: app.node.getContext("template"),
  parameters: { CodeBucket: app.node.getContext("bucket"), CodePrefix: app.node.getContext("folder") },
});
new CfnOutput(stack, "QueueForSenders", { value: stopper.getResource("EventQueue").attrArn });
